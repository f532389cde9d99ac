"""Invocations in a database, known to all processes on it."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from sqlalchemy import Connection

from agentscope.session import InvocationRecord, LineBatch, LinePage, Pause, StopRequest
from agentscope_adapters.storage._database import Database
from agentscope_adapters.storage._invocation_statements import InvocationStatements
from agentscope_adapters.storage._retries import Retries
from agentscope_adapters.storage._stops import StopStatements, Withdraw
from agentscope_adapters.storage._topics import STOPS, answer_topic, lines_topic

_T = TypeVar("_T")


class SqlInvocationStore:
    """See ``InvocationStore``. The schema of ``database`` is current.

    Nothing waits for the disk. What a crash of the database undoes is the last moment of all that was written: never
    the record of an invocation whose turn is saved, for a save comes after it, and waits for both.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._retries = Retries(database)
        self._invocations = InvocationStatements(database.dialect)
        self._append = database.dialect.appending(database.dialect)
        self._stops = StopStatements(database.dialect)

    async def open_invocation(self, record: InvocationRecord, alive: float, kept: float) -> InvocationRecord | None:
        """See ``InvocationStore.open_invocation``."""
        return await self._write_singly(lambda connection: self._invocations.open(connection, record, alive, kept))

    async def append_lines(self, batches: Collection[LineBatch], alive: float) -> None:
        """See ``InvocationStore.append_lines``."""
        if batches:
            await self._write_singly(lambda connection: self._append(connection, batches, alive))

    async def renew_invocations(self, invocation_ids: Collection[str], alive: float) -> None:
        """See ``InvocationStore.renew_invocations``."""
        if invocation_ids:
            await self._write_singly(lambda connection: self._invocations.renew(connection, invocation_ids, alive))

    async def find_invocation(self, invocation_id: str) -> InvocationRecord | None:
        """See ``InvocationStore.find_invocation``."""
        return await self._read(lambda connection: self._invocations.find(connection, invocation_id))

    async def read_lines(self, invocation_id: str, after: int) -> LinePage | None:
        """See ``InvocationStore.read_lines``."""
        return await self._read(lambda connection: self._invocations.read(connection, invocation_id, after))

    async def forget_invocations(self, invocation_ids: Collection[str]) -> None:
        """See ``InvocationStore.forget_invocations``."""
        if invocation_ids:
            await self._write_singly(lambda connection: self._invocations.forget(connection, invocation_ids))

    async def prune_invocations(self, limit: int = 100) -> int:
        """See ``InvocationStore.prune_invocations``."""
        return await self._write(lambda connection: self._invocations.prune(connection, limit))

    def watch_invocation(self, invocation_id: str) -> AbstractContextManager[Pause]:
        """See ``InvocationStore.watch_invocation``."""
        return self._database.watch(lines_topic(invocation_id))

    async def request_stop(self, request: StopRequest, ttl: float) -> None:
        """See ``InvocationStore.request_stop``."""
        await self._write(lambda connection: self._stops.ask(connection, request, ttl))

    async def stop_requests(self) -> Sequence[StopRequest]:
        """See ``InvocationStore.stop_requests``."""
        return await self._read(self._stops.waiting)

    async def answer_stop(self, request_id: str) -> None:
        """See ``InvocationStore.answer_stop``."""
        await self._write(lambda connection: self._stops.answer(connection, request_id))

    async def withdraw_stop(self, request_id: str) -> bool:
        """See ``InvocationStore.withdraw_stop``."""
        return await self._write(Withdraw(self._stops, request_id))

    async def is_stop_answered(self, request_id: str) -> bool:
        """See ``InvocationStore.is_stop_answered``."""
        return await self._read(lambda connection: self._stops.is_answered(connection, request_id))

    def watch_stops(self, request_id: str | None = None) -> AbstractContextManager[Pause]:
        """See ``InvocationStore.watch_stops``."""
        return self._database.watch(STOPS if request_id is None else answer_topic(request_id))

    async def _read(self, transaction: Callable[[Connection], _T]) -> _T:
        return await self._retries(lambda: self._database.read(transaction))

    async def _write(self, transaction: Callable[[Connection], _T]) -> _T:
        return await self._retries(lambda: self._database.write(transaction, lasts=False))

    async def _write_singly(self, transaction: Callable[[Connection], _T]) -> _T:
        return await self._retries(lambda: self._database.write_singly(transaction))
