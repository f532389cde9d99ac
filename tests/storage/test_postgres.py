"""What is Postgres's own: connections that break, and servers that refuse."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text

from agentscope.errors import SessionConflictError, SessionStoreError, UserError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import NEVER_SAVED, InvocationRecord, LineBatch, LinePage, SessionRepository
from agentscope_adapters.storage import postgres
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage._invocation_statements import InvocationStatements
from agentscope_adapters.storage._location import PostgresLocation
from agentscope_adapters.storage.migrations import upgrade_schema
from agentscope_adapters.storage.repository import SqlSessionRepository, open_repository
from postgres import PostgresServer, describe_postgres, find_binaries, find_wheel
from postgres import postgres_server as postgres_server_of
from storage.helpers import Module, append, begin, contents, invocations_of, items, put, put_list, save, take


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
        await asyncio.gather(*(save(repository, f"s{n}", plan=put()) for n in range(5)))

        await asyncio.to_thread(postgres_server.restart, "fast" if mode == "fast" else "immediate")

        assert (await save(repository, "s0", plan=put("1"))).version == 2
        loads = (contents(repository, f"s{n}") for n in range(1, 5))
        assert await asyncio.gather(*loads) == [{"plan": Module("{}", {})}] * 4
        async with repository.snapshot() as reader:
            assert await reader.count_sessions() == 5


async def test_a_snapshot_after_a_restart_of_the_server_works(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        await save(repository)
        await asyncio.to_thread(postgres_server.restart, "immediate")

        async with repository.snapshot() as reader:
            assert await reader.count_sessions() == 1


async def test_no_turn_is_lost_or_doubled_while_the_server_crashes_and_starts_again(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    saved: dict[str, list[str]] = {f"s{n}": [] for n in range(6)}
    unknown: dict[str, set[str]] = {name: set() for name in saved}
    restarted = asyncio.Event()

    async def turns(repository: SessionRepository, name: str) -> None:
        for number in count():
            try:
                lease = await take(repository, name, f"{name} {number}", ttl=2)
                start = len(await items(repository, name))
                change = append(start, f'"{number}"') if lease.revision.version else put_list([f'"{number}"'])
                unknown[name].add(f'"{number}"')
                await repository.save(lease, {"memory": change}, expected=lease.revision)
            except (SessionStoreError, SessionConflictError, AssertionError):
                # The server was away, or the lease is gone with its crash, or is still that of an earlier attempt.
                await asyncio.sleep(0.05)
            else:
                saved[name].append(f'"{number}"')
                await asyncio.gather(repository.release_leases([lease.claim]), return_exceptions=True)
                if restarted.is_set():
                    return

    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        working = [asyncio.create_task(turns(repository, name)) for name in saved]
        for _ in range(2):
            await asyncio.wait(working, timeout=0.3)
            await asyncio.to_thread(postgres_server.restart, "immediate")
        restarted.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*working)

        for name, acknowledged in saved.items():
            there = await items(repository, name)
            assert len(set(there)) == len(there)
            assert set(acknowledged) <= set(there) <= unknown[name]


async def test_lines_are_kept_once_while_connections_are_cut(postgres_url: str, tmp_path: Path) -> None:
    lines = [str(number) for number in range(200)]
    cutter = find_database(settings_for(f"{postgres_url}?application_name=cutter"), tmp_path)

    def cut(connection: Connection) -> None:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")).close()

    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        invocations = invocations_of(repository)
        await begin(invocations)
        for start in range(0, 200, 10):
            batch = LineBatch("i", start + 1, lines[start : start + 10], ends=start == 190)
            await asyncio.gather(invocations.append_lines([batch], 60), cutter.read(cut))
        await cutter.close()

        assert await invocations.read_lines("i", 0) == LinePage(lines, "ended")


async def test_what_is_kept_of_invocations_waits_for_no_disk_and_all_else_does(
    postgres_url: str, tmp_path: Path
) -> None:
    await upgrade_schema(settings_for(postgres_url), tmp_path)
    database = find_database(settings_for(postgres_url), tmp_path)
    statements = InvocationStatements(database.dialect)
    append = database.dialect.appending(database.dialect)

    def waits(connection: Connection) -> bool:
        return str(connection.execute(text("SHOW synchronous_commit")).scalar_one()) != "off"

    calls: list[Callable[[Connection], object]] = [
        lambda connection: statements.open(connection, InvocationRecord("i", "s", None, "key"), 60, 0),
        lambda connection: append(connection, [LineBatch("i", 1, ["a"])], 60),
        lambda connection: statements.renew(connection, ["i"], 0),
        lambda connection: statements.prune(connection, 1),
    ]
    try:
        for call in calls:
            assert await database.write(lambda connection: (call(connection), waits(connection))[1]) is False  # noqa: B023
            # It ended with the transaction.
            assert await database.write(waits)
    finally:
        await database.close()


async def test_a_call_while_the_server_is_down_fails_and_later_ones_work(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        await asyncio.to_thread(postgres_server.stop)
        try:
            with pytest.raises(SessionStoreError) as caught:
                await repository.ping()
            with pytest.raises(SessionStoreError):
                async with repository.snapshot():
                    pytest.fail("opened")
        finally:
            await asyncio.to_thread(postgres_server.start)

        begin = f"the session store postgresql://agentscope@127.0.0.1:{postgres_server.port}/"
        assert str(caught.value).startswith(begin)
        assert str(caught.value).endswith("check the address, and that the server runs and accepts connections")
        assert_hidden(caught.value, postgres_server.password)
        await repository.ping()


async def test_a_server_that_hangs_holds_up_nobody_for_ever(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "COMMAND_SECONDS", 0.5)

    def pid(connection: Connection) -> int:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    database = postgres.PostgresDatabase(PostgresLocation(postgres_url, "the label"))
    try:
        await upgrade_schema(settings_for(postgres_url), tmp_path)
        repository = SqlSessionRepository(database)
        lease = await take(repository)
        frozen = [await database.read(pid)]
        os.kill(frozen[0], signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                with pytest.raises(SessionStoreError, match=r"^the session store the label: no answer in time; check"):
                    await repository.save(lease, {"plan": put()}, expected=NEVER_SAVED)
                # By another connection.
                await repository.save(lease, {"plan": put()}, expected=NEVER_SAVED)
        finally:
            os.kill(frozen[0], signal.SIGCONT)
    finally:
        await database.close()


@pytest.mark.parametrize("does", ["read", "write"])
@pytest.mark.parametrize(("seconds", "is_kept"), [(0.3, True), (60.0, False)], ids=["is soon over", "goes on"])
async def test_a_connection_is_kept_whose_caller_is_cancelled_if_its_command(
    postgres_url: str, tmp_path: Path, seconds: float, is_kept: bool, does: str
) -> None:
    def sleep(connection: Connection) -> None:
        connection.execute(text(f"SELECT pg_sleep({seconds})"))

    def pid(connection: Connection) -> int:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def sleepers(connection: Connection) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
        return int(connection.execute(text(query)).scalar_one())

    database, other = (find_database(settings_for(postgres_url), tmp_path) for _ in range(2))
    try:
        first = await database.read(pid)
        call = asyncio.create_task(database.read(sleep) if does == "read" else database.write(sleep))
        async with asyncio.timeout(20):
            while not await other.read(sleepers):
                pass
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert (await database.read(pid) == first) is is_kept
            while await other.read(sleepers):
                pass
    finally:
        await database.close()
        await other.close()


@pytest.mark.parametrize("times", [2, 3, 4])
async def test_a_caller_that_is_cancelled_again_and_again_goes_when_its_command_has_ended(times: int) -> None:
    released = asyncio.Event()

    async def command() -> None:
        # As a driver does that has to tell the server first.
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    call = asyncio.create_task(postgres._whole(command()))  # pyright: ignore[reportPrivateUsage] - no server does it
    for _ in range(times):
        for _ in range(2):
            await asyncio.sleep(0)
        call.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    # Its connection is nobody else's until then.
    is_over = call.done()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not is_over


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
        with repository.watch("s") as pause:
            await pause(0)
        async with repository.snapshot() as reader:
            await reader.count_sessions()

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
        with pytest.raises(SessionStoreError) as caught:
            await save(repository, plan=put('"private"'))

    assert str(caught.value).endswith('relation "session_modules" does not exist; see the server\'s log')
    assert_hidden(caught.value, "private")


async def test_an_error_does_not_show_the_row_that_the_server_quotes(postgres_url: str, tmp_path: Path) -> None:
    async with open_repository(settings_for(postgres_url), tmp_path) as repository:
        revision = await save(repository, memory=put_list(["1"]))
        lease = await take(repository)
        with pytest.raises(SessionStoreError, match="duplicate key value violates unique constraint") as caught:
            await repository.save(lease, {"memory": append(0, '"private"')}, expected=revision)

    assert "session_id" not in str(caught.value)
    assert "private" not in str(caught.value)


def assert_hidden(error: BaseException | None, secret: str) -> None:
    """Neither the error's text nor those of its causes hold the secret."""
    while error is not None:
        assert secret not in str(error)
        assert quote(secret) not in str(error)
        error = error.__cause__ or error.__context__


async def refusal(url: str, tmp_path: Path) -> UserError:
    """The error of opening a repository, whose text and causes don't hold ``secret``."""
    with pytest.raises(UserError) as caught:
        async with open_repository(settings_for(url), tmp_path):
            pytest.fail("opened")
    assert_hidden(caught.value, "s%cret")
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
