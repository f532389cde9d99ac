"""Sessions in a database: the repository, and opening it."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import select, true

from agentscope.runtime.settings import SessionSettings
from agentscope.session import SessionRepository, StoredSession
from agentscope_adapters.storage._database import Database, find_database
from agentscope_adapters.storage._transactions import SaveSession, load_session
from agentscope_adapters.storage.migrations import require_schema


class SqlSessionRepository:
    """Sessions in a database whose schema is current."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._save = SaveSession(database.insert)
        self.label = database.label
        """The database's URL or file, without a password."""

    def __repr__(self) -> str:
        return f"SqlSessionRepository({self.label})"

    async def load(self, session_id: str, names: Collection[str] | None = None) -> StoredSession | None:
        """See ``SessionRepository.load``."""
        return await self._database.read(lambda connection: load_session(connection, session_id, names))

    async def save(self, session_id: str, modules: Mapping[str, str], *, expected_version: int) -> int:
        """See ``SessionRepository.save``."""
        return await self._database.write(
            lambda connection: self._save(connection, session_id, modules, expected_version)
        )

    async def ping(self) -> None:
        """See ``SessionRepository.ping``."""
        await self._database.read(lambda connection: connection.execute(select(true())).all())


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
