"""Who says what: a conversation as one agent's model sees it."""

from collections.abc import Iterable, Sequence

from agentscope.message import Msg


def seen_by(name: str, messages: Iterable[Msg]) -> list[Msg]:
    """The messages with the role ``user``, but for those that the agent of that name wrote.

    A model takes an assistant's message for the beginning of its own answer: another agent's words would be gone on
    with, not answered. Calls of tools and their results keep their roles, without which vendors refuse them.
    """
    return [msg if _is_own(name, msg) else _as_user(msg) for msg in messages]


def received(name: str, messages: Msg | Sequence[Msg] | None) -> list[Msg]:
    """What an agent of that name is given, as its memory keeps it.

    The last of it is what the agent is to answer. When that bears the agent's own name, as one agent's words to
    another of the same name do, it is still not the agent's own.
    """
    if messages is None:
        return []
    given = [messages] if isinstance(messages, Msg) else list(messages)
    for msg in given:
        if not isinstance(msg, Msg):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
            raise TypeError(f"an agent takes a Msg or a list of them, not a {type(messages).__name__}")
    if given and given[-1].role == "assistant" and given[-1].name == name:
        given[-1] = _as_user(given[-1])
    return given


def _is_own(name: str, msg: Msg) -> bool:
    if msg.role == "user":
        return True
    if isinstance(msg.content, list) and any(block["type"] in {"tool_use", "tool_result"} for block in msg.content):
        return True
    return msg.role == "assistant" and msg.name == name


def _as_user(msg: Msg) -> Msg:
    content = msg.content
    if isinstance(content, list):
        # Another's thoughts are its own, and signed for it alone.
        content = [block for block in content if block["type"] != "thinking"]
    return Msg(msg.name, content, "user", msg.metadata, msg.timestamp, msg.id)
