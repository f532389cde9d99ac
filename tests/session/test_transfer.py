"""An export gives back what was exported, and an import takes nothing but a whole one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.errors import SessionBusyError, SessionConflictError, SessionNotFoundError, UserError
from agentscope.session import (
    Claim,
    ExportFormatError,
    InMemorySessionRepository,
    ItemPage,
    Lease,
    ModuleHead,
    OnExisting,
    Revision,
    SessionRepository,
    SessionSummary,
    StoredSession,
    Tally,
    export_sessions,
    hold_session,
    import_sessions,
    module_states,
)

CREATED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
Lists = Mapping[tuple[str, str], Sequence[str]]


def a_session(session_id: str, version: int = 1, /, **modules: ModuleHead) -> StoredSession:
    summary = SessionSummary(session_id, CREATED, CREATED + timedelta(days=version), Revision(version, 0), 0)
    return StoredSession(summary, modules)


async def put(repository: SessionRepository, session: StoredSession, lists: Lists | None = None) -> None:
    async def pages() -> AsyncGenerator[ItemPage]:
        for (module, pointer), items in (lists or {}).items():
            if items:
                yield ItemPage(module, pointer, 0, items)

    async with hold_session(repository, session.summary.session_id) as lease:
        await repository.restore(lease, session, pages())


async def exported(repository: SessionRepository, session_ids: Sequence[str] | None = None) -> bytes:
    async with repository.snapshot() as reader:
        return b"".join([line async for line in export_sessions(reader, session_ids)])


async def in_pieces(data: bytes, size: int = 64 * 1024) -> AsyncGenerator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def imported(
    data: bytes, repository: SessionRepository | None = None, on_existing: OnExisting = "fail"
) -> SessionRepository:
    repository = repository or InMemorySessionRepository()
    await import_sessions(repository, in_pieces(data), on_existing=on_existing)
    return repository


async def ids(repository: SessionRepository) -> list[str]:
    return [summary.session_id for summary in await repository.list_sessions()]


@pytest.fixture
def repository() -> InMemorySessionRepository:
    return InMemorySessionRepository()


@pytest.fixture
async def export(repository: InMemorySessionRepository) -> bytes:
    """Two sessions; the first has 2,500 items."""
    memory = ModuleHead('{"content":[],"summary":"s"}', {"/content": 0})
    items = [f'["item {number}",[]]' for number in range(2500)]
    session = a_session("a", 7, memory=memory, other=ModuleHead("1"))
    await put(repository, session, {("memory", "/content"): items})
    await put(repository, a_session("b"))
    return await exported(repository)


async def test_an_export_has_the_documented_form(repository: InMemorySessionRepository) -> None:
    head = ModuleHead('{"content":[]}', {"/content": 3})
    await put(repository, a_session("a", 2, memory=head), {("memory", "/content"): ['"x"', "1"]})

    lines = [orjson.loads(line) for line in (await exported(repository)).splitlines()]

    assert lines == [
        {"format": "agentscope-sessions", "version": 1},
        {
            "session": {
                "session_id": "a",
                "created_at": "2026-01-02T03:04:05.678901Z",
                "updated_at": "2026-01-04T03:04:05.678901Z",
                "version": 2,
                "modules": {"memory": {"state": {"content": []}, "lists": ["/content"]}},
            }
        },
        {"items": {"module": "memory", "pointer": "/content", "start": 0, "values": ["x", 1]}},
        {"end": {"session_id": "a", "items": 2}},
        {"complete": {"sessions": 1}},
    ]


async def test_an_export_says_whose_a_session_is_and_of_nobodys_it_says_nothing(
    repository: InMemorySessionRepository,
) -> None:
    owned = a_session("a")
    await put(repository, StoredSession(replace(owned.summary, owner="ada 🗼"), owned.modules))
    await put(repository, a_session("b"))
    data = await exported(repository)

    first, second = (orjson.loads(line)["session"] for line in data.splitlines() if line.startswith(b'{"session"'))
    assert first["owner"] == "ada 🗼"
    assert "owner" not in second
    there = await imported(data)
    assert [summary.owner for summary in await there.list_sessions()] == ["ada 🗼", None]
    assert await exported(there) == data


async def test_a_session_that_is_replaced_is_then_whose_it_was_where_it_comes_from(export: bytes) -> None:
    there = InMemorySessionRepository()
    owned = a_session("a")
    await put(there, StoredSession(replace(owned.summary, owner="ada"), owned.modules))

    await import_sessions(there, in_pieces(export), on_existing="replace")

    assert await there.list_sessions(owner="ada") == []


async def test_what_is_imported_is_what_was_exported(export: bytes) -> None:
    there = await imported(export)

    session = await there.load("a")
    assert session is not None
    assert session.summary.created_at == CREATED
    assert session.summary.updated_at == CREATED + timedelta(days=7)
    assert session.revision.version == 7
    assert {name: head and head.state for name, head in session.modules.items()} == {
        "memory": '{"content":[],"summary":"s"}',
        "other": "1",
    }
    assert await exported(there) == export


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXTS, inside, max_size=3),
    max_leaves=8,
)
KEYS = TEXTS.map(lambda key: (key, "/" + key.replace("~", "~0").replace("/", "~1")))


@settings(max_examples=150, deadline=None)
@given(
    session_id=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=256),
    state=st.dictionaries(TEXTS, VALUES, max_size=4),
    tracked=st.dictionaries(KEYS, st.lists(VALUES, max_size=5), max_size=2),
    module=TEXTS,
    chunk=st.integers(1, 200),
)
def test_every_json_value_comes_back_byte_for_byte(
    session_id: str,
    state: dict[str, Any],
    tracked: dict[tuple[str, str], list[Any]],
    module: str,
    chunk: int,
) -> None:
    async def there_and_back() -> None:
        first, second = InMemorySessionRepository(), InMemorySessionRepository()
        head = orjson.dumps(state | {key: [] for key, _ in tracked}).decode()
        lists = {(module, at): [orjson.dumps(item).decode() for item in items] for (_, at), items in tracked.items()}
        stored = a_session(session_id)
        stored = StoredSession(stored.summary, {module: ModuleHead(head, dict.fromkeys((at for _, at in tracked), 0))})
        await put(first, stored, lists)
        written = await exported(first)
        await import_sessions(second, in_pieces(written, chunk))

        assert await exported(second) == written
        loaded = await second.load(session_id)
        assert loaded is not None
        [(_, whole)] = [pair async for pair in module_states(second, loaded)]
        assert repr(orjson.loads(whole)) == repr(state | {key: items for (key, _), items in tracked.items()})

    asyncio.run(there_and_back())


async def test_json_that_a_store_has_laid_out_stays_on_one_line(repository: InMemorySessionRepository) -> None:
    await put(repository, a_session("a", m=ModuleHead('{\n  "x": 1\n}')))

    assert b'"state":{"x":1}' in await exported(repository)


async def test_a_line_has_at_most_a_thousand_items_and_about_a_megabyte(
    repository: InMemorySessionRepository,
) -> None:
    large = orjson.dumps("x" * 600_000).decode()
    huge = orjson.dumps("x" * 3_000_000).decode()
    items = [*["1"] * 2500, large, large, huge, "2"]
    head = ModuleHead('{"content":[]}', {"/content": 0})
    await put(repository, a_session("a", m=head), {("m", "/content"): items})

    pages = [orjson.loads(line)["items"] for line in (await exported(repository)).splitlines()[2:-2]]

    assert [(page["start"], len(page["values"])) for page in pages] == [
        (0, 1000),
        (1000, 1000),
        (2000, 501),
        (2501, 1),
        (2502, 1),
        (2503, 1),
    ]


async def test_only_the_sessions_that_are_named_are_exported_once_each(
    repository: InMemorySessionRepository, export: bytes
) -> None:
    there = await imported(await exported(repository, ["b", "b"]))

    assert await ids(there) == ["b"]
    with pytest.raises(SessionNotFoundError, match="'c' does not exist"):
        await exported(repository, ["b", "c"])


async def test_more_sessions_than_a_page_are_all_exported(repository: InMemorySessionRepository) -> None:
    for number in range(250):
        await put(repository, a_session(f"s{number:03}"))
    tally = Tally()

    async with repository.snapshot() as reader:
        lines = [line async for line in export_sessions(reader, tally=tally)]

    assert orjson.loads(lines[-1]) == {"complete": {"sessions": 250}}
    assert tally == Tally(sessions=250)
    assert await (await imported(b"".join(lines))).count_sessions() == 250


async def test_an_export_is_of_one_moment(repository: InMemorySessionRepository, export: bytes) -> None:
    async with repository.snapshot() as reader, aclosing(export_sessions(reader)) as lines:
        written = await anext(lines)
        await put(repository, a_session("b", 99))
        await put(repository, a_session("c"))
        written += b"".join([line async for line in lines])

    assert written == export


async def test_a_session_that_exists_is_an_error_before_it_is_changed(export: bytes) -> None:
    there = InMemorySessionRepository()
    await put(there, a_session("b", 99))
    tally = Tally()

    with pytest.raises(UserError, match=r"^line 7: session 'b' exists already; .* --on-existing"):
        await import_sessions(there, in_pieces(export), tally=tally)

    assert tally == Tally(sessions=1, items=2500)
    assert [summary.revision.version for summary in await there.list_sessions()] == [7, 99]


async def test_sessions_that_exist_are_kept(export: bytes) -> None:
    there, tally = InMemorySessionRepository(), Tally()
    await put(there, a_session("a", 99))

    await import_sessions(there, in_pieces(export), on_existing="skip", tally=tally)

    assert tally == Tally(sessions=1, skipped=1)
    assert [summary.revision.version for summary in await there.list_sessions()] == [99, 1]


async def test_sessions_that_exist_are_replaced_with_all_that_they_had(export: bytes) -> None:
    there = InMemorySessionRepository()
    await put(there, a_session("a", 99, old=ModuleHead("0")))

    assert await exported(await imported(export, there, "replace")) == export


@pytest.mark.parametrize("on_existing", ["fail", "skip"])
async def test_a_session_that_comes_to_exist_meanwhile_is_not_changed(export: bytes, on_existing: OnExisting) -> None:
    class LateRepository(InMemorySessionRepository):
        async def load(self, *arguments: Any, **keywords: Any) -> None:
            return None

    there = LateRepository()
    await put(there, a_session("a", 99))
    if on_existing == "skip":
        await imported(export, there, on_existing)
    else:
        with pytest.raises(UserError, match="exists already"):
            await imported(export, there, on_existing)

    assert (await there.list_sessions())[0].revision.version == 99


async def test_no_lease_is_left(export: bytes) -> None:
    there = await imported(export)

    assert await there.take_lease(Claim("a", "me"), 5, waits=False) is not None


async def test_a_session_in_use_is_an_error_after_a_while(repository: InMemorySessionRepository) -> None:
    await repository.take_lease(Claim("a", "a server"), 60, waits=False)

    with pytest.raises(SessionBusyError, match="'a' is in use by a running server; try again or stop it"):
        async with hold_session(repository, "a", patience=0.05):
            pytest.fail("it was not free")

    await repository.release_leases([Claim("a", "a server")])
    assert await repository.take_lease(Claim("a", "the next"), 5, waits=False) is not None


async def test_a_session_in_use_is_waited_for(repository: InMemorySessionRepository, export: bytes) -> None:
    there, asked = InMemorySessionRepository(), asyncio.Event()
    server = Claim("a", "a server")
    await there.take_lease(server, 60, waits=False)

    async def chunks() -> AsyncIterator[bytes]:
        yield export
        asked.set()

    importing = asyncio.create_task(import_sessions(there, chunks()))
    await asyncio.sleep(0)
    assert await ids(there) == []
    await there.release_leases([server])
    await importing
    assert await ids(there) == ["a", "b"]


async def test_a_lease_that_is_lost_is_said_in_the_words_of_an_import(export: bytes) -> None:
    class SlowRepository(InMemorySessionRepository):
        async def restore(self, lease: Lease, session: StoredSession, pages: AsyncIterator[ItemPage]) -> None:
            raise SessionConflictError(lease.session_id, expected=0, found=None, lease_lost=True)

    with pytest.raises(UserError, match=r"^line 2: session 'a' was not imported: its lease was not renewed"):
        await imported(export, SlowRepository())


async def test_an_import_that_is_cancelled_leaves_no_half_session_and_no_lease(export: bytes) -> None:
    there, waiting = InMemorySessionRepository(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield export[: len(export) // 2]
        waiting.set()
        await asyncio.Event().wait()

    importing = asyncio.create_task(import_sessions(there, chunks()))
    await waiting.wait()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing

    assert await ids(there) == []
    assert await there.take_lease(Claim("a", "me"), 5, waits=False) is not None


async def test_of_an_export_that_is_cut_the_whole_sessions_are_imported(export: bytes) -> None:
    lines = export.splitlines(keepends=True)
    whole = b"".join(lines[:6])  # the first line, and session a
    for cut, imported_ids, says in (
        (b"", [], "line 1: there is nothing here; this is no export"),
        (lines[0], [], "line 1: the export is cut: more was to follow"),
        (lines[0] + lines[1][:30], [], "line 2: the export is cut: more was to follow"),
        (b"".join(lines[:4]), [], "line 4: the export is cut in session 'a', which was not imported"),
        (b"".join(lines[:5]) + lines[5][:-5], [], "line 6: the export is cut in session 'a'"),
        (whole, ["a"], "line 6: the export is cut: more was to follow"),
        (whole + lines[6], ["a"], "line 7: the export is cut in session 'b', which was not imported"),
        (b"".join(lines[:-1]), ["a", "b"], "line 8: the export is cut: more was to follow"),
    ):
        there = InMemorySessionRepository()
        with pytest.raises(ExportFormatError) as caught:
            await imported(cut, there)
        assert str(caught.value).startswith(says)
        assert await ids(there) == imported_ids


async def test_the_last_line_break_is_not_needed(export: bytes) -> None:
    assert await exported(await imported(export[:-1])) == export
    assert await exported(await imported(export + b"\n \n")) == export


def a_line(**value: Any) -> bytes:
    return orjson.dumps(value)


FIRST = a_line(format="agentscope-sessions", version=1)
TIME = "2026-01-02T03:04:05+01:00"


def a_session_line(without: str = "", **other: Any) -> bytes:
    module: Any = {"state": {"content": []}, "lists": ["/content"]}
    fields: dict[str, Any] = {
        "session_id": "s",
        "created_at": TIME,
        "updated_at": TIME,
        "version": 1,
        "modules": {"m": module},
    }
    return a_line(session={key: value for key, value in (fields | other).items() if key != without})


def items_line(
    start: int = 0, module: str = "m", pointer: str = "/content", values: Any = (1,), **other: Any
) -> bytes:
    return a_line(items={"module": module, "pointer": pointer, "start": start, "values": values, **other})


def a_module(state: Any, *lists: Any) -> Any:
    return {"m": {"state": state, "lists": lists}}


END = a_line(end={"session_id": "s", "items": 1})
SESSION = a_session_line()

WRONG: dict[str, tuple[list[bytes], str]] = {
    "another file": ([b"# Export\n"], "line 1: this is no export of sessions, which `agentscope sessions export` wr"),
    "one long line": ([b"\0" * 5000], "line 1: this is no export of sessions"),
    "JSON": ([b"[1]"], "line 1: this is no export of sessions"),
    "other JSON lines": ([b'{"a":1}', SESSION], "line 1: this is no export of sessions"),
    "newer": (
        [a_line(format="agentscope-sessions", version=2, compression="zstd")],
        "line 1: the export has format version 2, and this program knows 1; import it with a newer version",
    ),
    "first line": (
        [a_line(format="agentscope-sessions", version=1, x=1)],
        "line 1: the first line: unknown field 'x'",
    ),
    "no JSON": ([FIRST, SESSION, b"{x}", END], "line 3: this is not JSON: "),
    "no object": ([FIRST, b"[]", END], "line 2: this must be an object with one key"),
    "two keys": ([FIRST, b'{"a":1,"b":2}', END], "line 2: this must be an object with one key"),
    "no session": ([FIRST, END], "line 2: a session must come here, not 'end'"),
    "unknown field": ([FIRST, a_session_line(color="red"), END], "line 2: session: unknown field 'color'"),
    "no version": ([FIRST, a_session_line(without="version"), END], "line 2: session: field 'version' is missing"),
    "version 0": ([FIRST, a_session_line(version=0), END], "line 2: session: a session has a version from 1 on"),
    "true": ([FIRST, a_session_line(version=True), END], "line 2: session.version must be a whole number"),
    "no id": (
        [FIRST, a_session_line(session_id=""), END],
        "line 2: session: '' is no session id: it must be 1 to 256",
    ),
    "NUL in the id": ([FIRST, a_session_line(session_id="a\x00"), END], "line 2: session: 'a\\x00' is no session id"),
    "too great a version": ([FIRST, a_session_line(version=2**60), END], "line 2: session: a session has a version"),
    "the year 1": (
        [FIRST, a_session_line(created_at="0001-01-01T00:00:00+14:00"), END],
        "line 2: session.created_at must be a time in ISO 8601 with its zone",
    ),
    "naive time": (
        [FIRST, a_session_line(created_at="2026-01-02T03:04:05"), END],
        "line 2: session.created_at must be a time in ISO 8601 with its zone",
    ),
    "no time": ([FIRST, a_session_line(updated_at="now"), END], "line 2: session.updated_at must be a time"),
    "an owner that is no text": ([FIRST, a_session_line(owner=1), END], "line 2: session.owner must be a text"),
    "null as an owner": ([FIRST, a_session_line(owner=None), END], "line 2: session.owner must be a text"),
    "an empty owner": ([FIRST, a_session_line(owner=""), END], "line 2: session.owner must be a text of at least one"),
    "NUL in an owner": ([FIRST, a_session_line(owner="a\0"), END], "line 2: session.owner must be a text of at least"),
    "no modules": ([FIRST, a_session_line(modules=[]), END], "line 2: session.modules must be an object"),
    "module field": (
        [FIRST, a_session_line(modules={"m": {"state": 1, "lists": [], "x": 1}}), END],
        "line 2: module 'm': unknown field 'x'",
    ),
    "module": ([FIRST, a_session_line(modules={"m": 1}), END], "line 2: module 'm' must be an object"),
    "too deep": (
        [FIRST, a_session_line(modules=a_module("DEEP")).replace(b'"DEEP"', b"[" * 300 + b"]" * 300), END],
        "line 2: a value can't be stored: ",
    ),
    "items": ([FIRST, SESSION, b'{"items":1}', END], "line 3: items must be an object"),
    "no values": ([FIRST, SESSION, items_line(values=[]), END], "line 3: items: values must not be empty"),
    "other module": ([FIRST, SESSION, items_line(module="n")], "line 3: session 's' has no list '/content' in a mod"),
    "other list": ([FIRST, SESSION, items_line(pointer="/x")], "line 3: session 's' has no list '/x' in a module 'm'"),
    "a gap": ([FIRST, SESSION, items_line(), items_line(2)], "line 4: these items start at 2, and 1 of their list"),
    "repeated": ([FIRST, SESSION, items_line(), items_line(0)], "line 4: these items start at 0, and 1 of their list"),
    "negative": ([FIRST, SESSION, items_line(-1)], "line 3: items.start must be a whole number, 0 or greater"),
    "no end": ([FIRST, SESSION, SESSION], "line 3: items of session 's' or its end must come here, not 'session'"),
    "end of another": (
        [FIRST, SESSION, items_line(), a_line(end={"session_id": "t", "items": 1})],
        "line 4: this is the end of session 't' with 1 items; session 's' with 1 came before it",
    ),
    "fewer items": ([FIRST, SESSION, END], "line 3: this is the end of session 's' with 1 items; session 's' with 0"),
}


@pytest.mark.parametrize(("lines", "says"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_is_told_with_its_line_and_nothing_lands(lines: list[bytes], says: str) -> None:
    there = InMemorySessionRepository()

    with pytest.raises(ExportFormatError) as caught:
        await imported(b"\n".join([*lines, b""]), there)

    assert str(caught.value).startswith(says)
    assert await there.count_sessions() == 0


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([a_line(complete={"sessions": 2})], "line 5: 2 sessions were exported, and 1 are here"),
        ([a_line(complete={"sessions": 1}), b"{}"], "line 6: the export was complete before this line"),
    ],
    ids=["sessions are missing", "more follows"],
)
async def test_what_is_wrong_at_the_end_is_told_as_well(lines: list[bytes], says: str) -> None:
    there = InMemorySessionRepository()

    with pytest.raises(ExportFormatError) as caught:
        await imported(b"\n".join([FIRST, SESSION, items_line(), END, *lines]), there)

    assert str(caught.value) == says
    assert await ids(there) == ["s"]


PLACES: list[tuple[Any, Any, bool]] = [
    ({"a": []}, "/a", True),
    ({}, "/a", True),
    ({"a/b": {"~": []}}, "/a~1b/~0", True),
    ([[], []], "/1", True),
    ({"a": [1]}, "/a", False),
    ({"a": 1}, "/a/b", False),
    ({}, "/a/b", False),
    ([[]], "/1", False),
    ([[]], "/01", False),
    ([[]], "/-", False),
    ([], "", False),
    ({"a": []}, "a", False),
    ({"a": []}, 1, False),
]


@pytest.mark.parametrize(("state", "pointer", "fits"), PLACES)
async def test_a_list_has_its_place_in_the_state(state: Any, pointer: Any, fits: bool) -> None:
    end = a_line(end={"session_id": "s", "items": 0})
    lines = [FIRST, a_session_line(modules=a_module(state, pointer)), end, a_line(complete={"sessions": 1})]

    if fits:
        await imported(b"\n".join(lines))
    else:
        with pytest.raises(ExportFormatError, match="line 2: module 'm': its state has no place for a list at"):
            await imported(b"\n".join(lines))


async def test_times_of_other_zones_are_the_same_times() -> None:
    there = await imported(b"\n".join([FIRST, SESSION, items_line(), END, a_line(complete={"sessions": 1})]))

    [summary] = await there.list_sessions()
    assert summary.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert summary.created_at.tzinfo is UTC


async def test_an_import_of_lists_side_by_side(repository: InMemorySessionRepository) -> None:
    modules = a_module({"a": [], "b": []}, "/a", "/b")
    lines = [
        FIRST,
        a_session_line(modules=modules),
        items_line(0, pointer="/b", values=[1]),
        items_line(0, pointer="/a", values=[2]),
        items_line(1, pointer="/b", values=[3]),
        a_line(end={"session_id": "s", "items": 3}),
        a_line(complete={"sessions": 1}),
    ]
    await imported(b"\n".join(lines), repository)

    session = await repository.load("s")
    assert session is not None
    [(name, state)] = [pair async for pair in module_states(repository, session)]
    assert (name, orjson.loads(state)) == ("m", {"a": [2], "b": [1, 3]})
