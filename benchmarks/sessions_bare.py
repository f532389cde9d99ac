"""The reference: the statements of a turn that begins a session, with no kernel around them.

Its arguments are the database's URL and the seconds to go on for; it prints turns a second. What one turn says to the
database is recorded from the adapter and said again with other ids: on SQLite through SQLAlchemy's synchronous engine
in this one thread, on Postgres through the asynchronous one, many turns at once.
"""

import asyncio
import sys
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import orjson
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Executable, event
from sqlalchemy.ext.asyncio import create_async_engine

from agentscope.message import Msg
from agentscope.runtime.settings import SessionSettings
from agentscope.session import Claim, ListChange, ModuleChange, ModuleHead
from agentscope_adapters.storage._sqlite_connections import make_engine
from agentscope_adapters.storage.postgres import POOL_SIZE
from agentscope_adapters.storage.repository import open_repository

_AT_ONCE: Final = 32
_RELEASED_AT_ONCE: Final = 16
"""Leases that are given back in one statement: what the kernel comes to with as many turns at once."""

_WARM_SECONDS: Final = 0.3
_TTL: Final = 15.0

_CLAIM: Final = Claim("the session", "its owner")

_Executed = tuple[Executable, Sequence[dict[str, Any]], bool]
"""A statement, the rows of its parameters, and whether it was executed for many rows."""


@dataclass(frozen=True)
class Recording:
    """The three transactions of a turn, of ``_CLAIM``. ``fence`` is the fencing number that its lease had."""

    take: Sequence[_Executed]
    save: Sequence[_Executed]
    release: Sequence[_Executed]
    fence: int

    def filled(self, transaction: Sequence[_Executed], claims: Sequence[Claim], fence: int) -> Sequence[_Executed]:
        """The transaction for other claims and another fencing number, at this time."""
        values: dict[Any, Any] = {_CLAIM.session_id: claims[0].session_id, _CLAIM.owner: claims[0].owner}
        values[self.fence] = fence
        now = datetime.now(UTC)

        def fill(value: Any) -> Any:
            if isinstance(value, list):
                return [claim.session_id if _CLAIM.session_id in value else claim.owner for claim in claims]
            return now if isinstance(value, datetime) else values.get(value, value)

        return [
            (statement, [{name: fill(value) for name, value in row.items()} for row in rows], many)
            for statement, rows, many in transaction
        ]


async def record(settings: SessionSettings) -> Recording:
    """Let the adapter do one turn in an empty database, whose schema it makes."""
    state = ModuleHead('{"_compressed_summary":"","content":[]}', {"/content": 1})
    item = orjson.dumps([Msg("user", "hello", "user").to_dict(), []]).decode()
    change = ModuleChange(state, {"/content": ListChange(0, [item])})
    async with open_repository(settings, Path()) as repository:
        with _listening() as take:
            lease = await repository.take_lease(_CLAIM, _TTL, waits=True)
        assert lease is not None, "nobody else has it"
        fence = lease.fence
        with _listening() as save:
            await repository.save(lease, {"memory": change}, expected=lease.revision)
        others = [Claim(f"another {number}", f"owner {number}") for number in range(1, _RELEASED_AT_ONCE)]
        for other in others:
            await repository.take_lease(other, _TTL, waits=True)
        with _listening() as release:
            await repository.release_leases([_CLAIM, *others])
        lease = await repository.take_lease(_CLAIM, _TTL, waits=True)
        assert lease is not None, "it was released"
        await repository.delete(lease)
        await repository.release_leases([_CLAIM])
    return Recording(take, save, release, fence)


@contextmanager
def _listening() -> Generator[list[_Executed]]:
    executed: list[_Executed] = []

    def keep(
        _connection: object, statement: Executable, many: Sequence[dict[str, Any]], one: dict[str, Any], _: object
    ) -> None:
        executed.append((statement, list(many) or [one], bool(many)))

    event.listen(Engine, "before_execute", keep)
    try:
        yield executed
    finally:
        event.remove(Engine, "before_execute", keep)


def execute(connection: Connection, transaction: Collection[_Executed]) -> list[Any]:
    """Execute the statements, and return the rows that came; the first of a lease is the lease's own."""
    came: list[Any] = []
    for statement, rows, many in transaction:
        result = connection.execute(statement, rows if many else rows[0])
        if result.returns_rows:
            came += result.all()
    return came


class Turns:
    """Numbers turns, and collects leases to be given back."""

    def __init__(self) -> None:
        self._owner = uuid4().hex
        self._numbers = count()
        self.released: list[Claim] = []
        self.done = 0

    def claim(self) -> Claim:
        """The next turn's."""
        number = next(self._numbers)
        return Claim(f"bare-{self._owner}-{number}", f"{self._owner}/{number}")

    def end(self, claim: Claim) -> list[Claim]:
        """A turn is over: the claims to release now, if there are enough."""
        self.done += 1
        self.released.append(claim)
        if len(self.released) < _RELEASED_AT_ONCE:
            return []
        claims, self.released = self.released, []
        return claims


def run_sqlite(recording: Recording, path: Path, seconds: float) -> float:
    """Turns a second, one after the other."""
    engine = make_engine(path, "normal", foreign_keys=True)
    filled, turns = recording.filled, Turns()

    def turn() -> None:
        claim = turns.claim()
        with engine.begin() as connection:
            fence = execute(connection, filled(recording.take, [claim], 0))[0].fence
        with engine.begin() as connection:
            execute(connection, filled(recording.save, [claim], fence))
        claims = turns.end(claim)
        if claims:
            with engine.begin() as connection:
                execute(connection, filled(recording.release, claims, 0))

    def run(seconds: float) -> float:
        turns.done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            turn()
        return turns.done / (time.perf_counter() - began)

    run(_WARM_SECONDS)
    rate = run(seconds)
    engine.dispose()
    return rate


async def run_postgres(recording: Recording, url: str, seconds: float) -> float:
    """Turns a second, many at once."""

    async def connect() -> Any:
        return await asyncpg.connect(url)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    # As in the adapter.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        isolation_level="AUTOCOMMIT",
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_use_lifo=True,
    )
    writing = engine.execution_options(isolation_level="READ COMMITTED")
    filled, turns = recording.filled, Turns()

    async def turn() -> None:
        claim = turns.claim()
        async with engine.connect() as connection:
            taken = await connection.run_sync(execute, filled(recording.take, [claim], 0))
        async with writing.begin() as connection:
            await connection.run_sync(execute, filled(recording.save, [claim], taken[0].fence))
        claims = turns.end(claim)
        if claims:
            async with engine.connect() as connection:
                await connection.run_sync(execute, filled(recording.release, claims, 0))

    async def run(seconds: float) -> float:
        turns.done, began = 0, time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - began < seconds:
                await turn()

        await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
        return turns.done / (time.perf_counter() - began)

    try:
        await run(_WARM_SECONDS)
        return await run(seconds)
    finally:
        await engine.dispose()


def main() -> None:
    """Print how many turns a second there were."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    settings = SessionSettings(url=SecretStr(url), durability="normal", auto_migrate=True)
    recording = asyncio.run(record(settings))
    if url.startswith("sqlite"):
        print(run_sqlite(recording, Path(url.removeprefix("sqlite:///")), seconds))
    else:
        print(asyncio.run(run_postgres(recording, url, seconds)))


if __name__ == "__main__":
    main()
