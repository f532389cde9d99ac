"""Texts that a model reads: short, and such that every vendor can send them."""

import json
from typing import Any

SHOWN = 80
"""How many characters of a value that a model wrote are quoted back to it."""


def cut(text: str, length: int) -> str:
    """At most ``length`` characters of it; "…" stands for the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"


def sendable(text: str) -> str:
    """The text with lone surrogates written out as escapes: UTF-8 has no place for them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def shown(value: Any) -> str:
    """What a model wrote, in JSON and in at most ``SHOWN`` characters; of a list or an object only that it is one."""
    match value:
        case str():
            return cut(json.dumps(value[:SHOWN], ensure_ascii=False), SHOWN)
        case None | bool() | float():
            return json.dumps(value)
        case int() if abs(value) < 10**SHOWN:
            return cut(str(value), SHOWN)
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"
