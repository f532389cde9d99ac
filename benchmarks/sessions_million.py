"""What a million sessions in the database cost, against a thousand: to list, to load from the disk, to prune."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, Final, cast

import asyncpg
import orjson

from agentscope.message import Msg
from agentscope.runtime import Runtime
from agentscope.session import SessionRepository
from benchmarks.processes import Workplace
from benchmarks.sessions import Remembers, settle, turn
from benchmarks.sessions_stores import Store, session_settings, stores
from benchmarks.table import Row

_FEW: Final = 1_000
_MANY: Final = 1_000_000
_MESSAGES: Final = 2  # in each session
_ROUNDS: Final = 50
_PRUNE_ROUNDS: Final = 7
_PRUNED: Final = 100  # a round
_LIMIT: Final = 1.5

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)  # a session was saved each second from then on
_BUILD_SECONDS: Final = 300.0

# The session number n has the id n * factor % _IDS.
_FACTORS: Final = {"ids by age": 1, "ids in no order": 2_654_435_761}
_IDS: Final = 2**32

_STATE: Final = '{"_compressed_summary":"","content":[]}'
_ITEM: Final = orjson.dumps([Msg("user", "hello", "user").to_dict(), []]).decode()
_SIZE: Final = len(_STATE) + _MESSAGES * len(_ITEM)


def measure_million(workplace: Workplace) -> Iterator[Row | str]:
    """The same calls on a database of many sessions and on one of few.

    What is together in the list, or as old as another, is so on the disk too when the ids are in the order of age; in
    no order, as those that the kernel makes, each of it is on pages of its own.
    """
    for order, factor in _FACTORS.items():
        with stores(workplace.folder / order) as both:
            for store in both:
                yield from asyncio.run(_measure(store, f"million: {store.name}, {order}", factor))


async def _measure(store: Store, label: str, factor: int) -> list[Row]:
    fill = _fill_sqlite if store.name == "SQLite" else _fill_postgres
    many_url, few_url = (store.new_url(name) for name in ("many", "few"))
    # The next session that is used drives the last one out of memory.
    async with (
        Runtime(session_settings(many_url, max_resident=1), app=Remembers) as rt_many,
        Runtime(session_settings(few_url, max_resident=1), app=Remembers) as rt_few,
    ):
        await fill(many_url, _MANY, factor)
        await fill(few_url, _FEW, factor)
        many, few = _Sessions(rt_many, _MANY, factor), _Sessions(rt_few, _FEW, factor)
        rows: list[Row] = []
        for what, measure, rounds in (
            ("list", _list_page, _ROUNDS),
            ("load", _load_one, _ROUNDS),
            ("prune", _prune_batch, _PRUNE_ROUNDS),
        ):
            took = [(await measure(many), await measure(few)) for _ in range(rounds)]
            ours, reference = [pair[0] for pair in took], [pair[1] for pair in took]
            rows.append(Row(f"{label}, {what}", "µs", ours, reference, _LIMIT))
        return rows


@dataclass(frozen=True)
class _Sessions:
    """A database with so many sessions, and a runtime on it."""

    rt: Runtime
    number: int
    factor: int

    @property
    def repository(self) -> SessionRepository:
        """The store."""
        return self.rt.container.session_repository()

    def any_id(self) -> str:
        """The id of one of them."""
        return _session_id(random.randrange(self.number) * self.factor % _IDS)

    def middle(self) -> str:
        """A place in the middle half of the list."""
        last = self.number if self.factor == 1 else _IDS
        return _session_id(random.randrange(last // 4, last // 4 * 3))


def _session_id(number: int) -> str:
    return f"session-{number:08x}"


async def _list_page(sessions: _Sessions) -> float:
    after = sessions.middle()
    return await _microseconds(lambda: sessions.repository.list_sessions(after, 100))


async def _load_one(sessions: _Sessions) -> float:
    await turn(sessions.rt, "another", 0)
    await settle(sessions.rt)
    await turn(sessions.rt, sessions.any_id(), 0)
    return Remembers.load_seconds * 1e6


async def _prune_batch(sessions: _Sessions) -> float:
    await settle(sessions.rt)
    return await _microseconds(lambda: sessions.repository.prune(_EPOCH + timedelta(days=100), limit=_PRUNED))


async def _microseconds(call: Callable[[], Awaitable[object]]) -> float:
    began = perf_counter()
    found = await call()
    took = perf_counter() - began
    if not found:
        raise RuntimeError("there was nothing to list or to prune")
    return took * 1e6


async def _fill_sqlite(url: str, sessions: int, factor: int) -> None:
    await asyncio.to_thread(_fill_sqlite_file, url.removeprefix("sqlite:///"), sessions, factor)


def _fill_sqlite_file(path: str, sessions: int, factor: int) -> None:
    numbers = f"WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n + 1 < {sessions})"
    session_id = f"printf('session-%08x', n * {factor} % {_IDS})"
    time = f"strftime('%Y-%m-%d %H:%M:%S', '{_EPOCH:%Y-%m-%d}', n || ' seconds') || '.000000'"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-500000")
        connection.execute("BEGIN")
        for statement in _filling(numbers, session_id, time):
            connection.execute(statement, {"item": _ITEM})
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def _fill_postgres(url: str, sessions: int, factor: int) -> None:
    numbers = f"WITH t AS (SELECT n FROM generate_series(0::bigint, {sessions - 1}) n)"
    session_id = f"'session-' || lpad(to_hex(n * {factor} % {_IDS}), 8, '0')"
    time = f"timestamptz '{_EPOCH.isoformat()}' + n * interval '1 second'"
    connection = cast("Any", await asyncpg.connect(url))  # pyright: ignore[reportUnknownMemberType]
    try:
        # Without looking up each row's session.
        await connection.execute("SET session_replication_role = replica")
        for statement in _filling(numbers, session_id, time):
            await connection.execute(statement.replace(":item", f"'{_ITEM}'"), timeout=_BUILD_SECONDS)
        # What would come by itself, some time later.
        await connection.execute("VACUUM ANALYZE", timeout=_BUILD_SECONDS)
        await connection.execute("CHECKPOINT", timeout=_BUILD_SECONDS)
    finally:
        await connection.close()


def _filling(numbers: str, session_id: str, time: str) -> tuple[str, ...]:
    positions = " UNION ALL ".join(f"SELECT {position} AS position" for position in range(_MESSAGES))
    return (
        f"""INSERT INTO sessions (session_id, version, created_at, updated_at, fence, size_bytes)
        {numbers} SELECT {session_id}, 1, {time}, {time}, 1, {_SIZE} FROM t""",
        f"""INSERT INTO session_modules (session_id, name, head, lists, fence, size_bytes)
        {numbers} SELECT {session_id}, 'memory', '{_STATE}', '{{"/content":1}}', 1, {len(_STATE)} FROM t""",
        f"""INSERT INTO session_items (session_id, module, pointer, position, size_bytes, item)
        {numbers} SELECT {session_id}, 'memory', '/content', position, {len(_ITEM)}, :item
        FROM t, ({positions}) AS positions""",
    )
