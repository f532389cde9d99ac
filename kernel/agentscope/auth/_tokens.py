"""Tokens that a configuration or a file lists, each with the name of who has it."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agentscope.auth._claims import Claims
from agentscope.message import FrozenDict

SHORTEST_TOKEN: Final = 16
"""Characters: fewer can be guessed."""

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class StaticToken:
    """One token: the SHA-256 of it, and the claims of whoever shows it."""

    digest: bytes = field(repr=False)
    claims: Claims

    @classmethod
    def parse(cls, text: str) -> "StaticToken":
        """The token that is written as ``TOKEN`` or ``NAME TOKEN``.

        A token without a name is called ``token-`` and the first 16 hexadecimal digits of its SHA-256. Raises
        ``ValueError``, whose text holds nothing of the token, when it can't be one.
        """
        words = text.split()
        if text != text.strip() or not 1 <= len(words) <= 2:
            # A variable that is empty leaves the name and a blank, and the name must not become the token.
            raise ValueError("must be TOKEN or NAME TOKEN, without blanks around it")
        token = words[-1]
        if _VISIBLE.fullmatch(token) is None:
            raise ValueError("a token may hold letters, digits and the signs of ASCII alone")
        if len(token) < SHORTEST_TOKEN:
            raise ValueError(
                f"a token must have {SHORTEST_TOKEN} characters or more, for fewer can be guessed: "
                "make one with `openssl rand -hex 32`"
            )
        digest = hashlib.sha256(token.encode()).digest()
        name = words[0] if len(words) == 2 else f"token-{digest.hex()[:16]}"
        if not name.isprintable():
            raise ValueError("the name before a token holds a control character")
        return cls(digest, FrozenDict(sub=name))


def distinct_tokens(tokens: Iterable[StaticToken]) -> tuple[StaticToken, ...]:
    """The tokens, each once. Raises ``ValueError`` when one token has two names: it must stand for one caller."""
    found: dict[bytes, StaticToken] = {}
    for token in tokens:
        first = found.setdefault(token.digest, token)
        if first.claims != token.claims:
            raise ValueError(f"{first.claims['sub']} and {token.claims['sub']} have the same token")
    return tuple(found.values())
