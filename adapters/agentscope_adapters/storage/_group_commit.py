"""Group commit: writes that wait at the same moment share one transaction of SQLite's.

One BEGIN, one COMMIT, one hop to the thread and one write of each page to the log serve all of them: half as much work
again is done in the same time, and with ``durability: full`` one sync of the disk does for many.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from agentscope_adapters.storage._sqlite_connections import driver_of

_T = TypeVar("_T")

_MOST: Final = 16
"""How many writes share a transaction: the first must not wait for too many others."""


@dataclass(slots=True)
class Write:
    """A function that may change rows; without ``lasts`` a power cut may undo what it did."""

    transaction: Callable[[Connection], Any]
    lasts: bool
    outcome: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class GroupCommit:
    """Does writes in a thread. ``commit`` runs there: it begins a transaction, calls ``run_all`` and commits."""

    def __init__(self, thread: Executor, commit: Callable[[Sequence[Write]], None]) -> None:
        self._thread = thread
        self._commit = commit
        self._waiting: deque[Write] = deque()
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, transaction: Callable[[Connection], _T], *, lasts: bool) -> _T:
        """What the function returns once it is committed. All of what it does lands or none of it.

        A caller that is cancelled does not stop a write that has begun; one that has not is left out.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_T] = loop.create_future()
        self._waiting.append(Write(transaction, lasts, outcome))
        if self._working is None:
            # In no caller's context: it works for all.
            self._working = loop.create_task(self._work(), context=Context())
        return await outcome

    async def finished(self) -> None:
        """Return when all that was asked for is done."""
        if self._working is not None:
            await asyncio.wait([self._working])

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))]
                batch = [write for write in some if not write.outcome.cancelled()]
                if not batch:
                    continue
                try:
                    await loop.run_in_executor(self._thread, self._commit, batch)
                except Exception as error:
                    # None of it landed, as far as can be known.
                    for write in batch:
                        write.error = error
                except asyncio.CancelledError:
                    # With the whole program: nobody may be left waiting.
                    for write in (*batch, *self._waiting):
                        write.outcome.cancel()
                    self._waiting.clear()
                    raise
                for write in batch:
                    _settle(write)
        finally:
            self._working = None


def run_all(connection: Connection, batch: Sequence[Write]) -> None:
    """Run the writes of a batch in the transaction that has begun; what one raises undoes that one alone."""
    if len(batch) == 1:
        batch[0].result = batch[0].transaction(connection)
        return
    driver = driver_of(connection)
    for write in batch:
        # By the driver: SQLAlchemy's own savepoints take ten times as long.
        driver.execute("SAVEPOINT one_of_many")
        try:
            write.result = write.transaction(connection)
        except Exception as error:
            write.error = error
            with suppress(sqlite3.OperationalError):
                driver.execute("ROLLBACK TO one_of_many")
            if not driver.in_transaction:
                # A full disk, for one, has undone the whole transaction.
                raise
        driver.execute("RELEASE one_of_many")


def _settle(write: Write) -> None:
    if write.outcome.done():
        return
    if write.error is None:
        write.outcome.set_result(write.result)
    else:
        write.outcome.set_exception(write.error)
