"""What becomes of calls whose connection fails: they are made again, and land once."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection

from agentscope.errors import SessionConflictError, SessionStoreError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import (
    NEVER_SAVED,
    Claim,
    InvocationRecord,
    LineBatch,
    LinePage,
    Revision,
    StopRequest,
)
from agentscope_adapters.storage import _retries
from agentscope_adapters.storage._database import Database, Failure, find_database
from agentscope_adapters.storage.migrations import upgrade_schema
from agentscope_adapters.storage.repository import SqlSessionRepository
from storage.helpers import LIST, Module, append, contents, put, put_list, rewrite, save, take

_T = TypeVar("_T")


class UnreliableDatabase:
    """A database whose answers get lost. ``fails`` says for each call whether it is done before its failure."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fails: list[bool] = []
        self.failure_passes = True
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def read(self, transaction: Callable[[Connection], _T]) -> _T:
        return await self._done(lambda: self._database.read(transaction))

    async def write_singly(self, transaction: Callable[[Connection], _T]) -> _T:
        return await self._done(lambda: self._database.write_singly(transaction))

    async def write(self, transaction: Callable[[Connection], _T], *, lasts: bool = True) -> _T:
        return await self._done(lambda: self._database.write(transaction, lasts=lasts))

    def failure(self, error: BaseException) -> Failure | None:
        if isinstance(error, ConnectionResetError):
            return Failure("the answer was lost", "try later", self.failure_passes)
        return self._database.failure(error)

    async def _done(self, call: Callable[[], Awaitable[_T]]) -> _T:
        self.calls += 1
        if not self.fails:
            return await call()
        if self.fails.pop(0):
            await call()
        raise ConnectionResetError("secret")


@pytest.fixture
async def database(settings: SessionSettings, tmp_path: Path) -> AsyncGenerator[UnreliableDatabase]:
    await upgrade_schema(settings, tmp_path)
    database = find_database(settings, tmp_path)
    yield UnreliableDatabase(database)
    await database.close()


@pytest.fixture
def repository(database: UnreliableDatabase) -> SqlSessionRepository:
    return SqlSessionRepository(cast(Database, database))


LOST = pytest.mark.parametrize(
    "fails",
    [[True], [False], [True, True], [False, True, False]],
    ids=["answer lost", "request lost", "both answers lost", "one of three answers lost"],
)


@LOST
async def test_a_save_lands_once(
    repository: SqlSessionRepository, database: UnreliableDatabase, fails: list[bool]
) -> None:
    lease = await take(repository)
    revision = NEVER_SAVED
    for number, change in enumerate(
        (put_list(["1"]), append(1, "2", "3"), rewrite(1, "x", state='{"a":1}'), append(2, "y")), 1
    ):
        database.fails = list(fails)
        revision = await repository.save(lease, {"memory": change}, expected=revision)
        assert revision == Revision(number, lease.fence)

    assert await contents(repository) == {"memory": Module('{"a":1}', {LIST: ["1", "x", "y"]})}
    stored = await repository.load("s")
    assert stored is not None
    assert stored.summary.size_bytes == 10
    database.fails = list(fails)
    assert await repository.save(lease, {}, expected=revision) == revision


async def test_a_save_that_was_refused_is_not_taken_for_one_that_landed(
    repository: SqlSessionRepository, database: UnreliableDatabase
) -> None:
    lease = await take(repository)
    await repository.save(lease, {"plan": put("1")}, expected=NEVER_SAVED)
    # It is stored at the revision that this one would have, under the same lease.
    database.fails = [False]

    with pytest.raises(SessionConflictError):
        await repository.save(lease, {"plan": put("2")}, expected=NEVER_SAVED)


@LOST
async def test_a_session_is_deleted_once(
    repository: SqlSessionRepository, database: UnreliableDatabase, fails: list[bool]
) -> None:
    await save(repository, plan=put())
    lease = await take(repository)
    database.fails = list(fails)

    assert await repository.delete(lease) is True

    database.fails = list(fails)
    assert await repository.delete(lease) is False


@LOST
async def test_a_lease_is_taken_renewed_handed_over_and_released(
    repository: SqlSessionRepository, database: UnreliableDatabase, fails: list[bool]
) -> None:
    one, two = Claim("s", "one"), Claim("s", "two")

    database.fails = list(fails)
    lease = await repository.take_lease(one, 60, waits=False)
    assert lease is not None
    database.fails = list(fails)
    assert await repository.take_lease(two, 60, waits=True) is None
    database.fails = list(fails)
    assert list(await repository.renew_leases([one], 60)) == [one]
    await repository.save(lease, {}, expected=NEVER_SAVED)
    database.fails = list(fails)
    await repository.release_leases([one])
    assert await repository.take_lease(one, 60, waits=False) is None
    assert await repository.take_lease(two, 60, waits=False) is not None
    database.fails = list(fails)
    await repository.release_leases([two])
    assert await repository.take_lease(one, 60, waits=False) is not None


@LOST
async def test_an_invocation_is_opened_once_and_its_lines_are_kept_once(
    repository: SqlSessionRepository, database: UnreliableDatabase, fails: list[bool]
) -> None:
    invocations = repository.invocations
    record, second = InvocationRecord("i", "s", None, "key"), InvocationRecord("j", "s", None, "key")

    database.fails = list(fails)
    assert await invocations.open_invocation(record, 60, 60) is None
    database.fails = list(fails)
    assert await invocations.open_invocation(second, 60, 60) == record
    for start in (1, 3, 5):
        database.fails = list(fails)
        await invocations.append_lines([LineBatch("i", start, ["a", "b"], ends=start == 5)], 60)
    database.fails = list(fails)
    assert await invocations.read_lines("i", 0) == LinePage(["a", "b"] * 3, "ended")
    database.fails = list(fails)
    await invocations.forget_invocations(["i"])
    assert await invocations.find_invocation("i") is None


@LOST
async def test_a_request_is_left_answered_and_withdrawn_once(
    repository: SqlSessionRepository, database: UnreliableDatabase, fails: list[bool]
) -> None:
    invocations, request = repository.invocations, StopRequest("r", "s", "cancelled")

    database.fails = list(fails)
    await invocations.request_stop(request, 60)
    database.fails = list(fails)
    assert await invocations.stop_requests() == [request]
    database.fails = list(fails)
    await invocations.answer_stop("r")
    database.fails = list(fails)
    assert await invocations.withdraw_stop("r") is True
    assert await invocations.withdraw_stop("r") is False


@LOST
async def test_reading_is_tried_again(
    repository: SqlSessionRepository, database: UnreliableDatabase, fails: list[bool]
) -> None:
    await save(repository, memory=put_list(["1"]))
    database.fails = list(fails)

    assert await contents(repository) == {"memory": Module("{}", {LIST: ["1"]})}


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "_PAUSES", (0.0,) * 4)


@pytest.mark.usefixtures("no_pauses")
async def test_a_failure_that_stays_is_an_error_with_the_reason_and_a_remedy(
    repository: SqlSessionRepository, database: UnreliableDatabase
) -> None:
    database.fails = [False] * 100

    with pytest.raises(SessionStoreError):
        await repository.invocations.append_lines([LineBatch("i", 1, ["private"])], 60)
    database.calls = 0
    with pytest.raises(SessionStoreError) as caught:
        await repository.ping()

    assert str(caught.value) == f"the session store {database.label}: the answer was lost; try later"
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert database.calls == 5


@pytest.mark.parametrize("patience", [True, False], ids=["for good", "for too long"])
async def test_what_fails_for_good_or_for_too_long_is_not_tried_again(
    repository: SqlSessionRepository, database: UnreliableDatabase, monkeypatch: pytest.MonkeyPatch, patience: bool
) -> None:
    if patience:
        database.failure_passes = False
    else:
        monkeypatch.setattr(_retries, "_PATIENCE", -1.0)
    database.fails = [False] * 100

    with pytest.raises(SessionStoreError):
        await repository.ping()

    assert database.calls == 1


async def test_an_error_that_is_not_the_databases_is_the_callers_own(
    repository: SqlSessionRepository, database: UnreliableDatabase
) -> None:
    lease = await take(repository)

    with pytest.raises(UnicodeEncodeError):
        await repository.save(lease, {"plan": put('"\ud83d"')}, expected=NEVER_SAVED)

    assert await contents(repository) is None


async def test_an_address_that_nobody_answers_is_an_error(tmp_path: Path) -> None:
    database = find_database(SessionSettings(url=SecretStr("postgresql://u:secret@127.0.0.1:1/d")), tmp_path)
    try:
        with pytest.raises(SessionStoreError, match=r"^the session store postgresql://u@127.0.0.1:1/d: ") as caught:
            await SqlSessionRepository(database).ping()
    finally:
        await database.close()

    assert "secret" not in str(caught.value)
