"""Sessions as a file: exported from one store, imported into another. ``docs/commands.md`` describes the format."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from agentscope.errors import SessionConflictError, SessionNotFoundError, UserError
from agentscope.session._holding import hold_session
from agentscope.session._json import pointed_at
from agentscope.session._port import (
    NEVER_SAVED,
    ItemPage,
    SessionReader,
    SessionRepository,
    StoredSession,
)
from agentscope.session._transfer_lines import FORMAT, VERSION, ExportedSession, read_export

OnExisting = Literal["fail", "skip", "replace"]

_LINE_BYTES: Final = 1024 * 1024
_LINE_ITEMS: Final = 1000
_AHEAD_BYTES: Final = 16 * 1024 * 1024
_ITEM_OVERHEAD: Final = 64


@dataclass
class Tally:
    """How far an export or an import has come: ``sessions`` that are done, ``skipped`` ones, and ``items`` of lists.

    It is right after an error as well.
    """

    sessions: int = 0
    skipped: int = 0
    items: int = 0


async def export_sessions(
    reader: SessionReader, session_ids: Iterable[str] | None = None, *, tally: Tally | None = None
) -> AsyncGenerator[bytes]:
    """The lines of an export of these sessions, or of all; of one moment, if ``reader`` is a snapshot.

    Only one line's items are in memory at a time. Raises ``SessionNotFoundError`` before the first line.
    """
    tally = tally or Tally()
    wanted = None if session_ids is None else list(dict.fromkeys(session_ids))
    for session_id in wanted or ():
        if await reader.load(session_id, ()) is None:
            raise SessionNotFoundError(session_id)
    yield _line({"format": FORMAT, "version": VERSION})
    exported = 0
    async with aclosing(_ids(reader, wanted)) as ids:
        async for session_id in ids:
            async with aclosing(_export(reader, session_id, tally)) as lines:
                async for line in lines:
                    yield line
            tally.sessions += 1
            exported += 1
    yield _line({"complete": {"sessions": exported}})


async def import_sessions(
    repository: SessionRepository,
    chunks: AsyncIterator[bytes],
    *,
    on_existing: OnExisting = "fail",
    tally: Tally | None = None,
) -> Tally:
    """Store the sessions of an export, of which ``chunks`` are the bytes; each lands whole or not at all.

    One that exists already is an error, stays as it is and is skipped, or is replaced. Raises ``ExportFormatError``
    for what is no whole export, ``SessionBusyError`` for a session that is in use, ``UserError`` for one that exists;
    the sessions before it are stored.
    """
    tally = tally or Tally()
    async with aclosing(read_export(chunks)) as exported_sessions:
        async for exported in exported_sessions:
            if await _import(repository, exported, on_existing, tally):
                tally.sessions += 1
            else:
                tally.skipped += 1
    return tally


async def module_states(reader: SessionReader, session: StoredSession) -> AsyncGenerator[tuple[str, bytes]]:
    """The modules of a session by name, each with its whole state as JSON: its tracked lists are in their places."""
    for name, head in session.modules.items():
        if head is None:
            continue
        state: Any = orjson.loads(head.state)
        for pointer in head.lists:
            values: list[orjson.Fragment] = []
            async with aclosing(_pages(reader.items(session.summary.session_id, name, pointer))) as pages:
                async for page in pages:
                    values += page
            around, key = pointed_at(state, pointer)
            around[key] = values
        yield name, orjson.dumps(state)


def utc_text(time: datetime) -> str:
    """A time as in an export: ISO 8601, in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


async def _ids(reader: SessionReader, wanted: Sequence[str] | None) -> AsyncGenerator[str]:
    if wanted is not None:
        for session_id in wanted:
            yield session_id
        return
    page = await reader.list_sessions()
    while page:
        for summary in page:
            yield summary.session_id
        page = await reader.list_sessions(after=page[-1].session_id)


async def _export(reader: SessionReader, session_id: str, tally: Tally) -> AsyncGenerator[bytes]:
    session = await reader.load(session_id)
    if session is None:
        raise SessionNotFoundError(session_id)
    yield _line({"session": _head_of(session)})
    items = 0
    for name, head in session.modules.items():
        for pointer in () if head is None else head.lists:
            async with aclosing(_pages(reader.items(session_id, name, pointer))) as pages:
                start = 0
                async for values in pages:
                    page = {"module": name, "pointer": pointer, "start": start, "values": values}
                    yield _line({"items": page})
                    start += len(values)
                    tally.items += len(values)
                items += start
    yield _line({"end": {"session_id": session_id, "items": items}})


def _head_of(session: StoredSession) -> dict[str, Any]:
    summary = session.summary
    return {
        "session_id": summary.session_id,
        # Left out where sessions have no owners: programs that know of none read such exports too.
        **({} if summary.owner is None else {"owner": summary.owner}),
        "created_at": utc_text(summary.created_at),
        "updated_at": utc_text(summary.updated_at),
        "version": summary.revision.version,
        "modules": {
            name: {"state": orjson.Fragment(_encoded(head.state)), "lists": list(head.lists)}
            for name, head in session.modules.items()
            if head is not None
        },
    }


async def _pages(read: AsyncIterator[Sequence[str]]) -> AsyncGenerator[list[orjson.Fragment]]:
    """The items a line takes at a time: as many as ever, however many the store reads at once."""
    values: list[orjson.Fragment] = []
    size = 0
    try:
        async for items in read:
            for item in items:
                text = _encoded(item)
                if values and (size + len(text) > _LINE_BYTES or len(values) == _LINE_ITEMS):
                    yield values
                    values, size = [], 0
                values.append(orjson.Fragment(text))
                size += len(text) + 1
        if values:
            yield values
    finally:
        if isinstance(read, AsyncGenerator):
            await read.aclose()


def _encoded(text: str) -> bytes:
    """JSON as it is stored, but on one line."""
    return text.encode() if "\n" not in text else orjson.dumps(orjson.loads(text))


def _line(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


async def _import(
    repository: SessionRepository, exported: ExportedSession, on_existing: OnExisting, tally: Tally
) -> bool:
    """Store a session; False for one that is skipped."""
    session_id = exported.session.summary.session_id
    # Asked first: to leave a session alone it need not be free.
    if on_existing != "replace" and await repository.load(session_id, ()) is not None:
        return _skip(exported, on_existing)
    pages = await _read_ahead(exported.pages)
    async with hold_session(repository, session_id) as lease:
        if on_existing != "replace" and lease.revision != NEVER_SAVED:
            return _skip(exported, on_existing)
        try:
            await repository.restore(lease, exported.session, _counted(pages, tally))
        except SessionConflictError as error:
            raise UserError(
                f"line {exported.line}: session {session_id!r} was not imported: its lease was not renewed in time, "
                "because this process or the database stood still; import it again"
            ) from error
    return True


async def _read_ahead(pages: AsyncIterator[ItemPage]) -> AsyncGenerator[ItemPage]:
    """The same pages, many of which are in memory by now.

    A store may keep everyone else from writing while a session is restored, and an export may come slowly.
    """
    ahead: list[ItemPage] = []
    size = 0
    async for page in pages:
        ahead.append(page)
        size += sum(len(item) + _ITEM_OVERHEAD for item in page.items)
        if size > _AHEAD_BYTES:
            break

    async def all_pages() -> AsyncGenerator[ItemPage]:
        while ahead:
            yield ahead.pop(0)
        async for page in pages:
            yield page

    return all_pages()


def _skip(exported: ExportedSession, on_existing: OnExisting) -> bool:
    if on_existing == "fail":
        raise UserError(
            f"line {exported.line}: session {exported.session.summary.session_id!r} exists already; "
            "import with --on-existing skip to keep such sessions, or with --on-existing replace"
        )
    return False


async def _counted(pages: AsyncIterator[ItemPage], tally: Tally) -> AsyncGenerator[ItemPage]:
    async for page in pages:
        yield page
        tally.items += len(page.items)
