"""``agentscope sessions show``."""

import shutil
import sys
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches

import orjson

from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.session import (
    ModuleHead,
    SessionReader,
    SessionRepository,
    SessionSummary,
    StoredSession,
    module_states,
    read_conversation,
)
from agentscope_cli._sessions_list import summary_json
from agentscope_cli._sessions_output import (
    Output,
    age_text,
    counted,
    exact_text,
    printable,
    shortened,
    size_text,
)

_LAST_MESSAGES = 10
_PAGE_MESSAGES = 1000
_PAGE_BYTES = 4 * 1024 * 1024
_NEIGHBOURS = 1000
_WIDTH_ELSEWHERE = 160


@dataclass
class _Found:
    """The end of a conversation, and how many messages it has."""

    messages: int = 0
    last: deque[Msg] = field(default_factory=lambda: deque[Msg](maxlen=_LAST_MESSAGES))


async def print_session(repository: SessionRepository, session_id: str) -> None:
    """Print what a session is, its modules and the end of its conversation."""
    async with repository.snapshot() as reader:
        session = await _load(reader, session_id)
        modules = [
            line
            for name, head in session.modules.items()
            if head is not None
            for line in await _module(reader, session_id, name, head)
        ]
    found = await _conversation(repository, session_id)
    out = Output.standard()
    await out.write_lines(_summary(session.summary))
    await out.write_lines(modules)
    await out.write_lines(_messages(found))
    await out.flush()


async def print_session_as_json(repository: SessionRepository, session_id: str) -> None:
    """Print a session as one JSON object, with the whole state of its modules."""
    out = Output.standard()
    async with repository.snapshot() as reader:
        session = await _load(reader, session_id)
        await out.write(orjson.dumps(summary_json(session.summary))[:-1] + b',"modules":{')
        separator = b""
        async with aclosing(module_states(reader, session)) as states:
            async for name, state in states:
                await out.write(b"%b%b:%b" % (separator, orjson.dumps(name), state))
                separator = b","
    await out.write(b"}}\n")
    await out.flush()


async def _load(reader: SessionReader, session_id: str) -> StoredSession:
    session = await reader.load(session_id)
    if session is None:
        close = get_close_matches(session_id, await _neighbours(reader, session_id), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"session {session_id!r} does not exist{hint}")
    return session


async def _neighbours(reader: SessionReader, session_id: str) -> set[str]:
    """The ids around this one, of how ever many there are: those that begin as it does, and the first."""
    beginning = session_id[: len(session_id) // 2]
    near = await reader.list_sessions(beginning, _NEIGHBOURS)
    return {summary.session_id for summary in (*near, *await reader.list_sessions(limit=_NEIGHBOURS))}


def _summary(summary: SessionSummary) -> list[str]:
    saved = f"{exact_text(summary.updated_at)}, {age_text(summary.updated_at, datetime.now(UTC))}"
    return [
        f"session  {printable(summary.session_id)}",
        *([] if summary.owner is None else [f"owner    {printable(summary.owner)}"]),
        f"created  {exact_text(summary.created_at)}",
        f"saved    {saved}, version {summary.revision.version}",
        f"size     {size_text(summary.size_bytes)}",
    ]


async def _module(reader: SessionReader, session_id: str, name: str, head: ModuleHead) -> list[str]:
    """A module's size and the beginning of its state, and how much is in each of its lists."""
    state = shortened(head.state, _width() - 12)
    lines = ["", f"module {printable(name)}: {size_text(len(head.state.encode()))}", f"  {state}"]
    for pointer in head.lists:
        items = size = 0
        async for page in reader.items(session_id, name, pointer):
            items += len(page)
            size += sum(len(item.encode()) for item in page)
        lines.append(f"  {printable(pointer)}: {counted(items, 'item')}, {size_text(size)}")
    return lines


async def _conversation(repository: SessionRepository, session_id: str) -> _Found:
    found, place = _Found(), None
    while True:
        page = await read_conversation(
            repository, session_id, after=place, limit=_PAGE_MESSAGES, max_bytes=_PAGE_BYTES
        )
        if page is None:
            # Deleted a moment ago.
            return found
        found.messages += len(page.messages)
        found.last.extend(page.messages)
        place = page.next
        if place is None:
            return found


def _messages(found: _Found) -> list[str]:
    if not found.messages:
        return []
    skipped = found.messages - len(found.last)
    title = f"the last {len(found.last)} of {counted(found.messages, 'message')}" if skipped else "conversation"
    return ["", f"{title}:", *(_message(msg) for msg in found.last)]


def _message(msg: Msg) -> str:
    who = shortened(f"{msg.role} {msg.name}", 30)
    said = msg.get_text_content(" ") or ", ".join(f"[{block['type']}]" for block in msg.get_content_blocks())
    return f"  {who}: {shortened(said, max(_width() - len(who) - 4, 20))}"


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_ELSEWHERE
