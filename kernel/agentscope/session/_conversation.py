"""The conversation of a stored session: the messages that its memories hold, read a page at a time.

A memory's state is an object with a list ``content``, whose items are messages, or pairs of a message and its marks,
as ``InMemoryMemory`` saves it. The list is a tracked one, or is in the module's head when an older version saved it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import orjson

from agentscope.errors import SessionError
from agentscope.message import Msg
from agentscope.session._port import SessionReader, SessionRepository, StoredSession

_TURN_SECONDS: Final = 0.004
"""Long pages let the event loop turn after this long."""


class ConversationMovedError(SessionError):
    """The messages up to the given place are no longer those that were read: the conversation was rewritten."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, f"the conversation of session {session_id!r} was rewritten while it was read")


class Place(NamedTuple):
    """How far a conversation was read: before ``position`` of the list at ``pointer`` in a module's state.

    ``digest`` is of the item before it, which is how a list is known that was rewritten meanwhile.
    """

    module: str
    pointer: str
    position: int
    digest: str


class ConversationPage(NamedTuple):
    """Messages in order, and where the next page begins; None when there is no more."""

    messages: Sequence[Msg]
    next: Place | None


class _Item(NamedTuple):
    place: Place
    msg: Msg | None
    size: int


@dataclass(frozen=True, slots=True)
class _Content:
    """A list that may be a memory's. ``items`` are those that the module's head holds, None for a tracked list."""

    module: str
    pointer: str
    items: Sequence[Any] | None


async def read_conversation(
    repository: SessionRepository,
    session_id: str,
    *,
    owner: str | None = None,
    after: Place | None = None,
    limit: int,
    max_bytes: int,
) -> ConversationPage | None:
    """A page of the conversation of a session, from ``after`` on; None when there is no such session.

    With an ``owner``, None also when it is another's.

    It is read from up to ``limit`` items of up to ``max_bytes`` together, and at least one. It goes module by module
    in the order of their names; a message that several memories hold is there for each of them.

    Raises ``ConversationMovedError`` when ``after`` is a place of a list that was rewritten since, or is gone.
    """
    async with repository.snapshot() as reader:
        stored = await reader.load(session_id)
        if stored is None or (owner is not None and stored.summary.owner != owner):
            return None
        messages: list[Msg] = []
        count = size = 0
        place = after
        async with aclosing(_items(reader, session_id, _contents(stored), after, limit + 1)) as items:
            async for item in items:
                size += item.size
                if count == limit or (count and size > max_bytes):
                    return ConversationPage(messages, place)
                count += 1
                place = item.place
                if item.msg is not None:
                    messages.append(item.msg)
    return ConversationPage(messages, None)


def _contents(stored: StoredSession) -> list[_Content]:
    contents: dict[tuple[str, str], _Content] = {}
    for module, head in stored.modules.items():
        if head is None:
            continue
        # Most heads have no such list: they need not be decoded.
        plain = _plain_contents(orjson.loads(head.state)) if '"content"' in head.state else ()
        for pointer, items in plain:
            contents[module, pointer] = _Content(module, pointer, items)
        for pointer in head.lists:
            if pointer.endswith("/content"):
                contents[module, pointer] = _Content(module, pointer, None)
    return [contents[key] for key in sorted(contents)]


def _plain_contents(state: object) -> Iterator[tuple[str, list[Any]]]:
    """The lists called ``content`` in a state, each with its JSON pointer. What a message holds is its own."""
    unseen: list[tuple[str, object]] = [("", state)]
    while unseen:
        pointer, value = unseen.pop()
        for key, item in _inside(value):
            if isinstance(item, dict | list):
                nested = cast("dict[str, Any] | list[Any]", item)
                below = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
                if key == "content" and isinstance(nested, list) and nested and _message_of(nested[0]) is not None:
                    yield below, nested
                else:
                    unseen.append((below, nested))


def _inside(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield str(index), item
    elif isinstance(value, dict) and _as_message(cast("dict[str, object]", value)) is None:
        yield from cast("dict[str, object]", value).items()


async def _items(
    reader: SessionReader, session_id: str, contents: Sequence[_Content], after: Place | None, most: int
) -> AsyncGenerator[_Item]:
    """Up to ``most`` items from ``after`` on."""
    if after is not None:
        contents = [content for content in contents if (content.module, content.pointer) >= after[:2]]
        if not contents or (contents[0].module, contents[0].pointer) != after[:2]:
            raise ConversationMovedError(session_id)
    now = asyncio.get_running_loop().time
    rested = now()
    for content in contents:
        position, stop = (0, most) if after is None else (after.position - 1, after.position + most)
        async with aclosing(_texts(reader, session_id, content, position, stop)) as texts:
            async for text in texts:
                item = _item(content, position, text)
                position += 1
                if after is not None:
                    if item.place != after:
                        raise ConversationMovedError(session_id)
                    after = None
                    continue
                if position == 1 and item.msg is None:
                    # An app's own list: a memory's begins with a message.
                    break
                most -= 1
                yield item
                if now() - rested > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    rested = now()
        if after is not None:
            raise ConversationMovedError(session_id)


async def _texts(
    reader: SessionReader, session_id: str, content: _Content, start: int, stop: int
) -> AsyncGenerator[str]:
    if content.items is not None:
        for item in content.items[start:stop]:
            yield orjson.dumps(item).decode()
        return
    async with _closing(reader.items(session_id, content.module, content.pointer, start, stop)) as pages:
        async for page in pages:
            for text in page:
                yield text


@asynccontextmanager
async def _closing(pages: AsyncIterator[Sequence[str]]) -> AsyncGenerator[AsyncIterator[Sequence[str]]]:
    try:
        yield pages
    finally:
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()


def _item(content: _Content, position: int, text: str) -> _Item:
    msg, encoded = _message_of(orjson.loads(text)), text.encode()
    # Its marks may change and a message stays the same.
    digest = blake2b(encoded if msg is None else msg.id.encode(), digest_size=8).hexdigest()
    return _Item(Place(content.module, content.pointer, position + 1, digest), msg, len(encoded))


def _message_of(item: object) -> Msg | None:
    if isinstance(item, list):
        pair = cast("list[object]", item)
        return _as_message(pair[0]) if len(pair) == 2 and isinstance(pair[1], list) else None
    return _as_message(item)


def _as_message(value: object) -> Msg | None:
    """The message that ``Msg.to_dict`` wrote; None for anything else."""
    if not isinstance(value, dict):
        return None
    message = cast("dict[str, Any]", value)
    if not all(isinstance(message.get(key), str) for key in ("id", "name", "role", "timestamp")):
        return None
    if not isinstance(message.get("metadata"), dict | None):
        return None
    try:
        return Msg.from_dict(message)
    except (TypeError, ValueError, KeyError):
        return None
