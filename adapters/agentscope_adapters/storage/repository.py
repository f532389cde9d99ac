"""Sessions in a database: the repository, and opening it."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, select

from agentscope.errors import SessionStoreError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import (
    Claim,
    ItemPage,
    Lease,
    ModuleChange,
    Pause,
    Revision,
    SessionReader,
    SessionRepository,
    StoredSession,
)
from agentscope_adapters.storage._database import Database, Transaction, find_database
from agentscope_adapters.storage._leases import LeaseStatements
from agentscope_adapters.storage._pruning import Pruning
from agentscope_adapters.storage._reading import SqlSessionReader
from agentscope_adapters.storage._restoring import Restore
from agentscope_adapters.storage._retries import Retries
from agentscope_adapters.storage._saving import Delete, Save, SaveStatements
from agentscope_adapters.storage._schema import REVISIONS, VERSIONS
from agentscope_adapters.storage._topics import lease_topic
from agentscope_adapters.storage.invocations import SqlInvocationStore
from agentscope_adapters.storage.migrations import require_schema

_T = TypeVar("_T")


class SqlSessionRepository(SqlSessionReader):
    """Sessions in a database whose schema is current."""

    def __init__(self, database: Database) -> None:
        super().__init__(self._read)
        self._database = database
        self._retries = Retries(database)
        self._leases = LeaseStatements(database.dialect)
        self._saves = SaveStatements(database.dialect)
        self._pruning = Pruning(database.dialect)
        self.label = database.label
        """The database's URL or file, without a password."""
        self.invocations = SqlInvocationStore(database)
        """What all processes on the database know of invocations."""

    def __repr__(self) -> str:
        return f"SqlSessionRepository({self.label})"

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[SessionReader]:
        """See ``SessionRepository.snapshot``."""
        async with self._transaction(writes=False) as transaction:
            yield SqlSessionReader(self._retries.explained(transaction))

    async def take_lease(self, claim: Claim, ttl: float, *, waits: bool) -> Lease | None:
        """See ``SessionRepository.take_lease``."""
        return await self._retries(
            lambda: self._database.write_singly(
                lambda connection: self._leases.take(connection, claim, ttl, waits=waits)
            )
        )

    async def renew_leases(self, claims: Collection[Claim], ttl: float) -> Collection[Claim]:
        """See ``SessionRepository.renew_leases``."""
        return await self._retries(
            lambda: self._database.write_singly(lambda connection: self._leases.renew(connection, claims, ttl))
        )

    async def release_leases(self, claims: Collection[Claim]) -> None:
        """See ``SessionRepository.release_leases``."""
        left = await self._retries(
            lambda: self._database.write_singly(lambda connection: self._leases.free(connection, claims))
        )
        if left:
            await self._retries(
                lambda: self._database.write(lambda connection: self._leases.release(connection, left), lasts=False)
            )

    def watch(self, session_id: str) -> AbstractContextManager[Pause]:
        """See ``SessionRepository.watch``."""
        return self._database.watch(lease_topic(session_id))

    async def save(
        self,
        lease: Lease,
        changes: Mapping[str, ModuleChange],
        *,
        expected: Revision,
        saved_at: datetime | None = None,
        owner: str | None = None,
    ) -> Revision:
        """See ``SessionRepository.save``."""
        time = (saved_at or datetime.now(UTC)).astimezone(UTC)
        save = Save(self._saves, lease, changes, expected, time, owner)
        return await self._retries(lambda: self._database.write(save))

    async def delete(self, lease: Lease) -> bool:
        """See ``SessionRepository.delete``."""
        delete = Delete(self._saves, lease)
        return await self._retries(lambda: self._database.write(delete))

    async def prune(self, before: datetime, *, limit: int = 100) -> int:
        """See ``SessionRepository.prune``."""
        time = before.astimezone(UTC)
        return await self._retries(
            lambda: self._database.write(lambda connection: self._pruning(connection, time, limit))
        )

    async def restore(self, lease: Lease, session: StoredSession, pages: AsyncIterator[ItemPage]) -> None:
        """See ``SessionRepository.restore``."""
        restore = Restore(self._database.dialect, lease, session)
        async with self._transaction(writes=True) as transaction:
            run = self._retries.explained(transaction)
            await run(restore.begin)
            async for page in pages:
                await run(partial(restore.add, page=page))
            await run(restore.finish)
            with self._retries.explaining():
                await transaction.commit()

    async def ping(self) -> None:
        """See ``SessionRepository.ping``."""
        found = await self._read(lambda connection: connection.execute(select(VERSIONS.c.version_num)).scalars().all())
        if found != [REVISIONS[-1]]:
            raise SessionStoreError(f"the session store {self.label}: its schema was changed while this server runs")

    @asynccontextmanager
    async def _transaction(self, *, writes: bool) -> AsyncGenerator[Transaction]:
        async with AsyncExitStack() as stack:
            # Only opening it is tried again: of what comes then nothing would be left.
            yield await self._retries(lambda: stack.enter_async_context(self._database.transaction(writes=writes)))

    async def _read(self, transaction: Callable[[Connection], _T], /) -> _T:
        return await self._retries(lambda: self._database.read(transaction))


@asynccontextmanager
async def open_repository(settings: SessionSettings, project: Path) -> AsyncGenerator[SessionRepository]:
    """The sessions of the project in the folder ``project``, with the schema checked, or brought up to date.

    Raises ``SchemaError`` for a schema that does not fit, ``UserError`` when the database can't be used.
    """
    database = find_database(settings, project)
    try:
        await require_schema(database, settings.auto_migrate)
        yield SqlSessionRepository(database)
    finally:
        await database.close()
