"""The schema's revision: what it is, whether it fits this program, and bringing it up to date.

alembic is imported only when there is something to do.
"""

import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, select

from agentscope.errors import SchemaError, UserError
from agentscope.runtime.settings import SessionSettings
from agentscope_adapters.storage._database import Database, find_database
from agentscope_adapters.storage._schema import REVISIONS, VERSIONS

logger = logging.getLogger(__name__)

# alembic's `context` and `op` are global to the process: two runtimes that start together take turns.
_ALEMBIC = threading.Lock()


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The revision in the database ``database``, None when it has no tables, and the one this program needs."""

    database: str
    found: str | None
    needed: str

    @property
    def is_current(self) -> bool:
        """Whether this program can use the database as it is."""
        return self.found == self.needed

    @property
    def is_unknown(self) -> bool:
        """Whether the database was written by a newer program."""
        return self.found is not None and self.found not in REVISIONS

    def error(self) -> SchemaError:
        """What to raise for a schema that is not current."""
        if self.is_unknown:
            problem = f"schema {self.found} was written by a newer program than this one, which knows {self.needed}"
            remedy = "install that version, or restore a backup"
        else:
            problem = f"the schema is {self.found or 'none'} and this program needs {self.needed}"
            remedy = "run: agentscope db upgrade"
        return SchemaError(f"{self.database}: {problem}; {remedy}", found=self.found, needed=self.needed)


async def read_schema(settings: SessionSettings, project: Path) -> SchemaState:
    """The state of the schema, which stays as it is. Raises ``UserError`` when the database can't be used."""
    async with _opened(settings, project) as database:
        if not await database.exists():
            return SchemaState(database.label, found=None, needed=REVISIONS[-1])
        with database.explaining():
            return await database.read(lambda connection: _state(connection, database.label))


async def upgrade_schema(settings: SessionSettings, project: Path) -> SchemaState:
    """Bring the schema up to date, and return the state it was in before.

    All of an upgrade lands or none of it, also when several processes do it at once. Raises ``SchemaError`` for a
    schema that a newer program wrote, ``UserError`` when the database can't be used.
    """
    async with _opened(settings, project) as database:
        return await _upgrade(database)


async def downgrade_schema(settings: SessionSettings, project: Path, revision: str) -> SchemaState:
    """Take the schema back to an older revision, and return the state it was in before.

    No session loses any of its state. What the older schema has no place for is lost: whose the sessions are, and what
    is kept of invocations. For the way back to an older program; those of this one must not run meanwhile. All of it
    lands or none of it.

    Raises ``UserError`` for a revision that is unknown, or newer than the database's, and when the database can't be
    used; ``SchemaError`` for a schema that a newer program wrote.
    """
    if revision not in REVISIONS:
        raise UserError(f"there is no schema {revision}; this program knows {', '.join(REVISIONS)}")
    async with _opened(settings, project) as database:
        if not await database.exists():
            raise _nothing_older(SchemaState(database.label, found=None, needed=REVISIONS[-1]), revision)
        with database.explaining():
            before = await database.migrate(lambda connection: _run_downgrade(connection, database.label, revision))
        if before.found != revision:
            logger.info("%s: schema %s -> %s", before.database, before.found, revision)
        return before


async def require_schema(database: Database, auto_migrate: bool | None) -> None:
    """Return when the schema is current; bring it there when ``auto_migrate`` says so, else raise ``SchemaError``.

    ``auto_migrate`` None leaves it to the kind of database.
    """
    migrates = database.migrates_by_itself if auto_migrate is None else auto_migrate
    if await database.exists():
        with database.explaining():
            state = await database.read(lambda connection: _state(connection, database.label))
    else:
        state = SchemaState(database.label, found=None, needed=REVISIONS[-1])
    if state.is_current:
        return
    if state.is_unknown or not migrates:
        raise state.error()
    await _upgrade(database)


def scripts_configuration(package: Path) -> Path:
    """The ``alembic.ini`` for the package folder of this module; the scripts' folder ``alembic`` lies beside it.

    In a checkout it is the checkout's own: an editable install may hold a copy of an earlier day beside the package.
    """
    adapters = package.parents[1]
    if adapters.name == "adapters" and (adapters.parent / "alembic" / "env.py").is_file():
        return adapters.parent / "alembic.ini"
    return package / "alembic.ini"


@asynccontextmanager
async def _opened(settings: SessionSettings, project: Path) -> AsyncGenerator[Database]:
    database = find_database(settings, project)
    try:
        yield database
    finally:
        await database.close()


def _state(connection: Connection, label: str) -> SchemaState:
    found = None
    # Asked first: on Postgres a failing SELECT would spoil the transaction.
    if inspect(connection).has_table(VERSIONS.name):
        found = connection.execute(select(VERSIONS.c.version_num)).scalar_one_or_none()
    return SchemaState(label, found, needed=REVISIONS[-1])


async def _upgrade(database: Database) -> SchemaState:
    with database.explaining():
        before = await database.migrate(lambda connection: _run_upgrade(connection, database.label))
    if not before.is_current:
        # Making a database is part of every project's first start, changing one is an event.
        level = logging.INFO if before.found else logging.DEBUG
        logger.log(level, "%s: schema %s -> %s", before.database, before.found or "none", before.needed)
    return before


def _run_upgrade(connection: Connection, label: str) -> SchemaState:
    # Read here, behind the lock: another process may just have done the work.
    before = _state(connection, label)
    if before.is_unknown:
        raise before.error()
    if not before.is_current:
        _run_scripts(connection, before.needed, down=False)
    return before


def _run_downgrade(connection: Connection, label: str, revision: str) -> SchemaState:
    before = _state(connection, label)
    if before.is_unknown:
        raise before.error()
    if before.found is None or REVISIONS.index(revision) > REVISIONS.index(before.found):
        raise _nothing_older(before, revision)
    if before.found != revision:
        _run_scripts(connection, revision, down=True)
    return before


def _run_scripts(connection: Connection, revision: str, *, down: bool) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(scripts_configuration(Path(__file__).parent))
    config.attributes["connection"] = connection
    with _ALEMBIC:
        (command.downgrade if down else command.upgrade)(config, revision)


def _nothing_older(state: SchemaState, revision: str) -> UserError:
    return UserError(
        f"{state.database}: the schema is {state.found or 'none'}, which is older than {revision}; "
        "to bring it up to date, run: agentscope db upgrade"
    )
