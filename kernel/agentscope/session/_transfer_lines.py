"""Reading an export of sessions. Everything is checked, for a store takes what it is given."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import orjson

from agentscope.errors import UserError
from agentscope.session._ids import check_session_id
from agentscope.session._port import ItemPage, ModuleHead, Revision, SessionSummary, StoredSession

FORMAT: Final = "agentscope-sessions"
VERSION: Final = 1

_LONGEST_FIRST_LINE = 1024
_MOST_VERSIONS = 2**53
_NO_EXPORT = "this is no export of sessions, which `agentscope sessions export` writes"
_WORDS = {str: "a text", int: "a whole number, 0 or greater", dict: "an object", list: "a list"}


class ExportFormatError(UserError):
    """What is read is no export of sessions, is cut, or holds what doesn't belong there.

    ``line`` is where it was noticed, counted from 1.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


@dataclass(frozen=True, slots=True)
class ExportedSession:
    """A session in an export, whose line is ``line``. Its ``pages`` are read as they are asked for."""

    line: int
    session: StoredSession
    pages: AsyncIterator[ItemPage]


async def read_export(chunks: AsyncIterator[bytes]) -> AsyncGenerator[ExportedSession]:
    """The sessions of an export, of which ``chunks`` are the bytes. Each is read to its end before the next comes.

    Raises ``ExportFormatError``, also while the pages of a session are read.
    """
    lines = _Lines(chunks)
    _check_header(lines, await lines.read_header())
    sessions = 0
    while True:
        kind, value = await lines.read()
        if kind == "complete":
            break
        if kind != "session":
            raise lines.error(f"a session must come here, not {kind!r}")
        session = _session(lines, value)
        pages = _pages(lines, session)
        yield ExportedSession(lines.number, session, pages)
        async for _ in pages:
            # What the caller had no need for.
            pass
        sessions += 1
    promised = _fields(lines, "complete", value, {"sessions": int})["sessions"]
    if promised != sessions:
        raise lines.error(f"{promised} sessions were exported, and {sessions} are here")
    await lines.require_end()


class _Lines:
    """The lines as JSON, each an object with one key. ``number`` is that of the line which was read last."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._lines = _split(chunks)
        self._reading: str | None = None
        self.number = 0

    def error(self, reason: str) -> ExportFormatError:
        return ExportFormatError(self.number, reason)

    def enter(self, session_id: str | None) -> None:
        """Say in the error for an export that is cut which session that is in."""
        self._reading = session_id

    async def read_header(self) -> object:
        first = await anext(self._lines, None)
        self.number = 1
        if first is None:
            raise self.error(f"there is nothing here; {_NO_EXPORT}")
        try:
            return orjson.loads(first[0])
        except orjson.JSONDecodeError as error:
            raise self.error(_NO_EXPORT) from error

    async def read(self) -> tuple[str, Any]:
        read = await anext(self._lines, None)
        if read is None:
            raise self._cut()
        line, is_whole = read
        self.number += 1
        try:
            value: object = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if not is_whole:
                raise self._cut() from error
            raise self.error(f"this is not JSON: {error.msg} (column {error.colno})") from error
        if not isinstance(value, dict) or len(cast("dict[str, Any]", value)) != 1:
            raise self.error("this must be an object with one key: session, items, end or complete")
        return next(iter(cast("dict[str, Any]", value).items()))

    async def require_end(self) -> None:
        async for line, _ in self._lines:
            self.number += 1
            if line.strip():
                raise self.error("the export was complete before this line")

    def _cut(self) -> ExportFormatError:
        if self._reading is None:
            return self.error("the export is cut: more was to follow")
        return self.error(f"the export is cut in session {self._reading!r}, which was not imported")


async def _split(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[bytes, bool]]:
    """The lines, each with whether a line break ends it."""
    parts: list[bytes] = []
    is_first = True
    async for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join((*parts, end)), True
            parts.clear()
            is_first = False
        parts.append(rest)
        if is_first and sum(map(len, parts)) > _LONGEST_FIRST_LINE:
            # Some other file, which may be one line of many gigabytes.
            raise ExportFormatError(1, _NO_EXPORT)
    if any(parts):
        yield b"".join(parts), False


def _check_header(lines: _Lines, header: object) -> None:
    if not isinstance(header, dict) or cast("dict[str, Any]", header).get("format") != FORMAT:
        raise lines.error(_NO_EXPORT)
    version = cast("dict[str, Any]", header).get("version")
    if version != VERSION:
        raise lines.error(
            f"the export has format version {version!r}, and this program knows {VERSION}; "
            "import it with a newer version of agentscope"
        )
    _fields(lines, "the first line", cast("object", header), {"format": str, "version": int})


def _session(lines: _Lines, value: object) -> StoredSession:
    what = "session"
    types = {"session_id": str, "created_at": str, "updated_at": str, "version": int, "modules": dict}
    fields = _fields(lines, what, value, types, {"owner": str})
    if not 0 < fields["version"] < _MOST_VERSIONS:
        raise lines.error(f"{what}: a session has a version from 1 on")
    try:
        check_session_id(fields["session_id"])
    except ValueError as error:
        raise lines.error(f"{what}: {error}") from error
    summary = SessionSummary(
        session_id=fields["session_id"],
        created_at=_time(lines, f"{what}.created_at", fields["created_at"]),
        updated_at=_time(lines, f"{what}.updated_at", fields["updated_at"]),
        revision=Revision(fields["version"], 0),
        size_bytes=0,
        owner=_owner(lines, fields),
    )
    modules = {name: _head(lines, name, module) for name, module in fields["modules"].items()}
    return StoredSession(summary, modules)


def _owner(lines: _Lines, fields: Mapping[str, Any]) -> str | None:
    owner: str | None = fields.get("owner")
    if owner is not None and (not owner or "\0" in owner):
        raise lines.error("session.owner must be a text of at least one character, without the character 0")
    return owner


def _head(lines: _Lines, name: str, value: object) -> ModuleHead:
    fields = _fields(lines, f"module {name!r}", value, {"state": object, "lists": list})
    pointers: list[object] = fields["lists"]
    for pointer in pointers:
        if not isinstance(pointer, str) or not _is_place_of_list(fields["state"], pointer):
            raise lines.error(f"module {name!r}: its state has no place for a list at {pointer!r}")
    return ModuleHead(_text(lines, fields["state"]), dict.fromkeys(cast("list[str]", pointers), 0))


def _is_place_of_list(state: Any, pointer: str) -> bool:
    """Whether a JSON pointer leads to an empty list, or to a key that an object doesn't have."""
    if not pointer.startswith("/"):
        return False
    for step in pointer.split("/")[1:]:
        if isinstance(state, dict):
            state = cast("dict[str, Any]", state).get(step.replace("~1", "/").replace("~0", "~"), _MISSING)
        elif isinstance(state, list) and re.fullmatch(r"0|[1-9][0-9]{0,9}", step):
            items = cast("Sequence[Any]", state)
            if int(step) >= len(items):
                return False
            state = items[int(step)]
        else:
            return False
    return state is _MISSING or state == []


_MISSING: Final[Any] = object()


async def _pages(lines: _Lines, session: StoredSession) -> AsyncGenerator[ItemPage]:
    session_id = session.summary.session_id
    lines.enter(session_id)
    counts = {(name, pointer): 0 for name, head in session.modules.items() if head for pointer in head.lists}
    while True:
        kind, value = await lines.read()
        if kind == "end":
            break
        if kind != "items":
            raise lines.error(f"items of session {session_id!r} or its end must come here, not {kind!r}")
        page = _page(lines, value)
        there = counts.get((page.module, page.pointer))
        if there is None:
            raise lines.error(f"session {session_id!r} has no list {page.pointer!r} in a module {page.module!r}")
        if page.start != there:
            raise lines.error(f"these items start at {page.start}, and {there} of their list came before them")
        counts[page.module, page.pointer] += len(page.items)
        yield page
    end = _fields(lines, "end", value, {"session_id": str, "items": int})
    if end != {"session_id": session_id, "items": sum(counts.values())}:
        raise lines.error(
            f"this is the end of session {end['session_id']!r} with {end['items']} items; "
            f"session {session_id!r} with {sum(counts.values())} came before it"
        )
    lines.enter(None)


def _page(lines: _Lines, value: object) -> ItemPage:
    fields = _fields(lines, "items", value, {"module": str, "pointer": str, "start": int, "values": list})
    if not fields["values"]:
        raise lines.error("items: values must not be empty")
    items = [_text(lines, item) for item in fields["values"]]
    return ItemPage(fields["module"], fields["pointer"], fields["start"], items)


def _text(lines: _Lines, value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise lines.error(f"a value can't be stored: {error}") from error


def _time(lines: _Lines, what: str, value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise lines.error(f"{what} must be a time in ISO 8601 with its zone")


def _fields(
    lines: _Lines,
    what: str,
    value: object,
    types: Mapping[str, type],
    optional: Mapping[str, type] | None = None,
) -> dict[str, Any]:
    """``value``, an object with just these fields, of these types; the ``optional`` ones may be missing."""
    if not isinstance(value, dict):
        raise lines.error(f"{what} must be an object")
    fields = cast("dict[str, Any]", value)
    types = {**types, **{name: wanted for name, wanted in (optional or {}).items() if name in fields}}
    for name in fields.keys() ^ types.keys():
        raise lines.error(
            f"{what}: unknown field {name!r}" if name in fields else f"{what}: field {name!r} is missing"
        )
    for name, wanted in types.items():
        field = fields[name]
        if wanted is not object and (type(field) is not wanted or (isinstance(field, int) and field < 0)):
            raise lines.error(f"{what}.{name} must be {_WORDS[wanted]}")
    return fields
