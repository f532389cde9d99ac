"""Runs the migration scripts: on the connection that the program hands in, or on ``-x url=…`` from a checkout."""

import asyncio
from pathlib import Path

from alembic import context
from alembic.util import CommandError
from pydantic import SecretStr
from sqlalchemy import Connection

from agentscope.runtime.settings import SessionSettings
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage._schema import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # SQLite can't alter most of a table: alembic copies it instead.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_on_url(url: str) -> None:
    database = find_database(SessionSettings(url=SecretStr(url)), Path.cwd())
    try:
        await database.migrate(run)
    finally:
        await database.close()


def main() -> None:
    if context.is_offline_mode():
        raise CommandError("--sql is not supported: run the upgrade on a copy of the database")
    connection = context.config.attributes.get("connection")
    if connection is not None:
        run(connection)
        return
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise CommandError("say which database: alembic -x url=sqlite:///sessions.db …")
    asyncio.run(run_on_url(url))


main()
