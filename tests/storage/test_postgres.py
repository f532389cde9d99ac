"""What is Postgres's own: connections that break, and servers that refuse."""

import asyncio
import socket
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from agentscope.errors import UserError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import StoredSession
from agentscope_adapters.storage import postgres
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage._location import PostgresLocation
from agentscope_adapters.storage.repository import open_repository
from postgres import PostgresServer, describe_postgres, find_binaries, find_wheel
from postgres import postgres_server as postgres_server_of


def settings_for(url: str, *, auto_migrate: bool | None = True) -> SessionSettings:
    return SessionSettings(url=SecretStr(url), auto_migrate=auto_migrate)


def test_the_header_says_which_postgres_the_tests_use() -> None:
    assert describe_postgres() == f"postgres: {find_binaries().origin}, {find_binaries().folder}"


def test_a_server_of_the_wheels_binaries_works_too() -> None:
    with postgres_server_of(find_wheel()) as server:
        assert server.create_database() == "test_0"
        server.restart()
        server.drop_database("test_0")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_the_next_call_after_a_restart_of_the_server_works(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path, mode: str
) -> None:
    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        # Several connections in the pool, all of which break.
        await asyncio.gather(*(repository.save(f"s{n}", {}, expected_version=0) for n in range(5)))

        await asyncio.to_thread(postgres_server.restart, "fast" if mode == "fast" else "immediate")

        assert await repository.save("s0", {"memory": "1"}, expected_version=1) == 2
        assert await asyncio.gather(*(repository.load(f"s{n}") for n in range(1, 5))) == [StoredSession(1, {})] * 4


async def test_a_call_while_the_server_is_down_fails_and_later_ones_work(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        await asyncio.to_thread(postgres_server.stop)
        try:
            with pytest.raises((OSError, DBAPIError)) as caught:
                await repository.ping()
        finally:
            await asyncio.to_thread(postgres_server.start)

        assert postgres_server.password not in str(caught.value)
        await repository.ping()


async def test_every_option_of_libpq_is_understood(postgres_url: str, tmp_path: Path) -> None:
    url = f"{postgres_url}?sslmode=disable&application_name=kiosk".replace("postgresql://", "postgres+asyncpg://")
    database = find_database(settings_for(url), tmp_path)

    def name(connection: Connection) -> object:
        return connection.execute(text("SHOW application_name")).scalar()

    try:
        assert await database.read(name) == "kiosk"
    finally:
        await database.close()


async def test_closing_leaves_no_connection(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    def count(connection: Connection) -> object:
        return connection.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'")
        ).scalar()

    async with open_repository(settings_for(f"{postgres_url}?application_name=counted"), tmp_path) as repository:
        await asyncio.gather(*(repository.ping() for _ in range(5)))

    database = find_database(settings_for(postgres_server.url()), tmp_path)
    try:
        # A backend is gone a moment after its client hung up.
        async with asyncio.timeout(5):
            while await database.read(count):
                pass
    finally:
        await database.close()


async def test_an_error_does_not_show_the_state(postgres_url: str, tmp_path: Path) -> None:
    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        database = find_database(settings_for(postgres_url), tmp_path)
        try:
            await database.write(lambda connection: connection.execute(text("DROP TABLE session_modules")).close())
        finally:
            await database.close()
        with pytest.raises(DBAPIError) as caught:
            await repository.save("s", {"memory": '"private"'}, expected_version=0)

    assert "private" not in str(caught.value)


async def refusal(url: str, tmp_path: Path) -> UserError:
    """The error of opening a repository, whose text and causes don't hold ``secret``."""
    with pytest.raises(UserError) as caught:
        async with open_repository(settings_for(url), tmp_path):
            pytest.fail("opened")
    error: BaseException | None = caught.value
    while error is not None:
        assert "s%cret" not in str(error)
        assert quote("s%cret") not in str(error)
        error = error.__cause__ or error.__context__
    return caught.value


async def test_a_wrong_password_is_the_users_to_mend_and_is_not_shown(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = f"postgresql://agentscope:{quote('s%cret')}@{postgres_server.host}:{postgres_server.port}/postgres"

    assert str(await refusal(url, tmp_path)) == (
        f"session.url: postgresql://agentscope@127.0.0.1:{postgres_server.port}/postgres: "
        'password authentication failed for user "agentscope"; check the user and the password'
    )


async def test_a_database_that_does_not_exist_is_the_users_to_mend(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    refused = await refusal(postgres_server.url("nowhere"), tmp_path)

    assert 'database "nowhere" does not exist; create it' in str(refused)


async def test_a_server_that_cannot_be_reached_is_the_users_to_mend(tmp_path: Path) -> None:
    with closing(socket.socket()) as nobody:
        # Bound, and not listening: connections to it are refused.
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        refused = await refusal(f"postgresql://u:{quote('s%cret')}@127.0.0.1:{port}/d", tmp_path)

    assert str(refused).startswith(f"session.url: postgresql://u@127.0.0.1:{port}/d: ")
    assert str(refused).endswith("check the address, and that the server runs and accepts connections")


async def test_an_option_that_is_wrong_is_the_users_to_mend(postgres_url: str, tmp_path: Path) -> None:
    refused = await refusal(f"{postgres_url}?sslmode=maybe", tmp_path)

    assert "`sslmode` parameter must be one of" in str(refused)
    assert str(refused).endswith("correct the URL")


async def test_a_host_that_is_no_name_is_the_users_to_mend(tmp_path: Path) -> None:
    assert str(await refusal(f"postgresql://u:{quote('s%cret')}@a..b/d", tmp_path)).endswith("correct the URL")


async def test_an_upgrade_does_not_wait_for_ever_for_another(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOCK_SECONDS", 0.05)
    first, second = (postgres.PostgresDatabase(PostgresLocation(postgres_url, "db")) for _ in range(2))
    begun, finish = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        begun.set()
        finish.wait()

    holding = asyncio.create_task(first.migrate(hold))
    await asyncio.to_thread(begun.wait)
    with pytest.raises(UserError, match="lock timeout; another migration is running"), second.explaining():
        await second.migrate(hold)

    finish.set()
    await holding
    await first.close()
    await second.close()


async def test_a_user_who_may_not_create_tables_is_told_so(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    database = find_database(settings_for(postgres_url), tmp_path)
    try:
        await database.write(
            lambda connection: connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC")).close()
        )
        await database.write(
            lambda connection: connection.execute(text("CREATE ROLE guest LOGIN PASSWORD 's%cret'")).close()
        )
        url = postgres_url.replace(
            f"agentscope:{quote(postgres_server.password, safe='')}", f"guest:{quote('s%cret')}"
        )
        refused = await refusal(url, tmp_path)
        assert "permission denied for schema public; grant the right" in str(refused)
    finally:
        await database.write(lambda connection: connection.execute(text("DROP ROLE IF EXISTS guest")).close())
        await database.close()
