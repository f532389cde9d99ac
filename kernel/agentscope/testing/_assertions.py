"""Assertions whose failures show what happened instead."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from agentscope.message import Msg
from agentscope.testing._model import ModelCall
from agentscope.testing._tools import RecordedToolCall


class _Asked(Protocol):
    @property
    def calls(self) -> Sequence[ModelCall]: ...


class _Called(Protocol):
    @property
    def calls(self) -> Sequence[RecordedToolCall]: ...


def text_of(messages: Iterable[Msg]) -> str:
    """All that was said, one text after the other; blocks without text are left out."""
    return "".join(msg.get_text_content("") or "" for msg in messages)


def assert_said(messages: Iterable[Msg], text: str, *, name: str | None = None) -> None:
    """Assert that the text is in what was said; with ``name``, in what that one said.

    A text may lie across messages, as that of a stream does.
    """
    said = list(messages)
    if text not in text_of(msg for msg in said if name in (None, msg.name)):
        who = "nobody" if name is None else f"{name!r} never"
        raise AssertionError(f"{who} said {text!r}; what was said:\n{_listed(map(_message, said))}")


def assert_asked(model: _Asked, text: str, *, call: int | None = None) -> None:
    """Assert that a model was called with a message that holds the text.

    ``call`` is the number of the call, from 0, or from -1 backwards; None means any.
    """
    calls = list(model.calls)
    try:
        candidates = calls if call is None else [calls[call]]
    except IndexError:
        candidates = []
    if not any(text in (msg.get_text_content() or "") for asked in candidates for msg in asked.messages):
        which = "in no call" if call is None else f"not in call {call}"
        listed = [f"call {number}:\n{_listed(map(_message, asked.messages))}" for number, asked in enumerate(calls)]
        raise AssertionError(f"{which} was the model asked {text!r}; its calls:\n{_listed(listed)}")


def assert_tool_called(tools: _Called, tool: str, /, **arguments: object) -> None:
    """Assert that a tool was called with those arguments, and maybe others."""
    if not any(call.name == tool and arguments.items() <= dict(call.arguments).items() for call in tools.calls):
        raise AssertionError(f"{_call(tool, arguments)} was not called; what was called:\n{_calls(tools)}")


def assert_no_tool_called(tools: _Called) -> None:
    """Assert that no tool was called."""
    if tools.calls:
        raise AssertionError(f"no tool should have been called; what was called:\n{_calls(tools)}")


def _message(msg: Msg) -> str:
    parts: list[str] = []
    for block in msg.get_content_blocks():
        if block["type"] == "text":
            parts.append(repr(block["text"]))
        elif block["type"] == "tool_use":
            parts.append(f"calls {_call(block['name'], block['input'])}")
        elif block["type"] == "tool_result":
            parts.append(f"{block['name']} answered {json.dumps(block['output'], ensure_ascii=False, default=str)}")
        else:
            parts.append(f"<{block['type']}>")
    return f"{msg.name} ({msg.role}): {', '.join(parts) or 'nothing'}"


def _calls(tools: _Called) -> str:
    return _listed(_call(call.name, call.arguments) for call in tools.calls)


def _call(name: str, arguments: Mapping[str, object]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _listed(lines: Iterable[str]) -> str:
    return "\n".join("  " + line.replace("\n", "\n  ") for line in lines) or "  nothing"
