"""An authenticator of one's own, by an entry point or in the place of the configured one. It fails closed."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from aiohttp import ClientSession, web

from agentscope.auth import Claims
from agentscope.errors import AuthenticatorUnavailableError, ForbiddenError, UnauthorizedError, UserError
from agentscope.runtime import Runtime
from agentscope.runtime.settings import AuthSettings
from agentscope.server import ServerRunner, create_app
from agentscope.testing import InMemorySessionRepository
from auth.signing import bearer
from auth.test_tokens import Tells, refusal, who
from runtime.test_runtime import adapters
from serving import Echo, served, settings

OURS = {"auth": {"provider": "ours", "options": {"name": "carol"}}}


class ByApiKey:
    """Knows one caller, by another header."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False

    async def authenticate(self, headers: Mapping[str, str]) -> Claims:
        if headers.get("x-api-KEY") != "hunter2":
            raise UnauthorizedError("no key")
        return {"sub": self.name, "roles": ("a", "b"), "more": MappingProxyType({"deep": [1]})}


async def test_a_package_adds_one_by_an_entry_point_and_it_is_closed_at_the_end() -> None:
    made: list[ByApiKey] = []

    @asynccontextmanager
    async def provider(given: AuthSettings, project: Path) -> AsyncGenerator[ByApiKey]:
        assert project.is_absolute()
        made.append(ByApiKey(given.options["name"]))
        yield made[0]
        made[0].closed = True

    with adapters(authenticators={"ours": provider}):
        async with served(Tells, server=OURS) as server:
            known = {"sub": "carol", "roles": ["a", "b"], "more": {"deep": [1]}}
            assert await who(server, {"X-Api-Key": "hunter2"}) == known
            assert await refusal(server, {}) == (401, "UNAUTHORIZED", "no key", "Bearer")
    assert made[0].closed


async def test_one_stands_in_for_the_configured_one_and_ends() -> None:
    async with served(Tells, server={"auth": {"tokens": ["alice alices-token-0123"]}}) as server:
        with server.runtime.override(authenticator=ByApiKey("dave")):
            assert (await server.client.get("/sessions", headers=bearer("alices-token-0123"))).status == 401
            assert (await server.client.get("/sessions", headers={"X-Api-Key": "hunter2"})).status == 200
        assert (await server.client.get("/sessions", headers={"X-Api-Key": "hunter2"})).status == 401
        assert await who(server, bearer("alices-token-0123")) == {"sub": "alice"}


async def test_one_stands_in_before_the_start_and_then_the_configured_one_is_not_opened() -> None:
    auth = {"tokens_file": "/nowhere/at/all"}
    async with served(Tells, authenticator=ByApiKey("dave"), server={"auth": auth}) as server:
        assert (await server.client.get("/sessions", headers={"X-Api-Key": "hunter2"})).status == 200


async def test_one_that_stood_in_at_the_start_leaves_nobody_known_when_it_ends() -> None:
    runtime = Runtime(settings(server={"auth": {"tokens": ["alice alices-token-0123"]}}), app=Echo)
    with runtime.override(authenticator=ByApiKey("dave")):
        await runtime.initialize()
    runner = ServerRunner(create_app(runtime))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            response = await client.get("/sessions", headers=bearer("alices-token-0123"))
    finally:
        await runner.cleanup()
        await runtime.shutdown()
    assert (response.status, (await response.json())["error"]["code"]) == (503, "NOT_READY")


class Fails:
    """Raises, or returns, what it is given."""

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome

    async def authenticate(self, headers: Mapping[str, str]) -> Any:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class NoText(Exception):
    """Its own text fails."""

    def __str__(self) -> str:
        raise ValueError("hunter2")


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(ValueError("Bearer hunter2"), id="raises"),
        pytest.param(ConnectionResetError("hunter2"), id="its connection is lost"),
        pytest.param(TimeoutError(), id="takes too long"),
        pytest.param(NoText(), id="raises what has no text"),
        pytest.param(web.HTTPOk(text="hunter2"), id="raises a response"),
        pytest.param(None, id="returns nothing"),
        pytest.param(True, id="returns yes"),
        pytest.param("alice", id="returns a name"),
        pytest.param([("sub", "alice")], id="returns pairs"),
        pytest.param({1: "alice"}, id="returns keys that are no texts"),
        pytest.param({"a": {2: "alice"}}, id="returns such keys deeper"),
    ],
)
async def test_one_that_fails_lets_nobody_in_and_no_secret_out(
    outcome: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(Echo, authenticator=Fails(outcome)) as server:
        response = await server.client.get("/sessions", headers=bearer("hunter2"))
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "NOT_READY")
    assert error["message"] == "who calls can't be checked now; try again"
    assert response.headers["Retry-After"] == "1"
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 1
    assert failures[0].getMessage().startswith("the authenticator failed: ")
    assert failures[0].getMessage().endswith(f"request {error['request_id']}")
    assert "hunter2" not in caplog.text


async def test_one_without_a_coroutine_lets_nobody_in() -> None:
    class Synchronous:
        def authenticate(self, headers: Mapping[str, str]) -> Claims:
            return {"sub": "alice"}

    authenticator: Any = Synchronous()
    async with served(Echo, authenticator=authenticator) as server:
        assert (await refusal(server, {}))[:2] == (503, "NOT_READY")


async def test_one_may_know_the_caller_and_refuse_it_or_not_know_it_now(caplog: pytest.LogCaptureFixture) -> None:
    class NotHere(ForbiddenError):
        """A more exact one."""

    async with served(Echo) as server:
        for outcome, told in (
            (ForbiddenError("not on Sundays"), (403, "FORBIDDEN", "not on Sundays", None)),
            (NotHere("not here"), (403, "FORBIDDEN", "not here", None)),
            (
                AuthenticatorUnavailableError("hunter2", retry_after=7),
                (503, "NOT_READY", "who calls can't be checked now; try again", None),
            ),
        ):
            with server.runtime.override(authenticator=Fails(outcome)):
                assert await refusal(server, {}) == told
        with server.runtime.override(authenticator=Fails(AuthenticatorUnavailableError("down", retry_after=7))):
            assert (await server.client.get("/sessions")).headers["Retry-After"] == "7"
    assert "failed" not in caplog.text


async def test_what_is_no_authenticator_is_refused() -> None:
    async with served(Echo) as server:
        with pytest.raises(TypeError, match="authenticator: a InMemorySessionRepository is no Authenticator"):
            with server.runtime.override(authenticator=InMemorySessionRepository()):
                pass


@pytest.mark.parametrize("given", [None, object(), "yes"])
async def test_a_provider_that_gives_none_is_an_error_at_start(given: object) -> None:
    @asynccontextmanager
    async def provider(_: AuthSettings, __: Path) -> AsyncGenerator[object]:
        yield given

    with adapters(authenticators={"ours": provider}):
        with pytest.raises(UserError, match=r"^server\.auth\.provider: ours: a \w+ is no Authenticator"):
            await Runtime(settings(server=OURS), app=Echo).initialize()


async def test_a_provider_that_can_not_be_opened_is_an_error_at_start_that_tells_no_secret() -> None:
    @asynccontextmanager
    async def provider(_: AuthSettings, __: Path) -> AsyncGenerator[ByApiKey]:
        for address in ["https://kiosk:hunter2@identity.example"]:
            raise ConnectionRefusedError(address)
        yield ByApiKey("carol")

    with adapters(authenticators={"ours": provider}):
        with pytest.raises(UserError, match=r"^server\.auth\.provider: 'ours' can't be opened: Conn") as raised:
            await Runtime(settings(server=OURS), app=Echo).initialize()
    assert "hunter2" not in str(raised.value)


async def test_a_provider_that_is_not_there_is_an_error_at_start() -> None:
    with pytest.raises(UserError, match=r"^server\.auth\.provider: no adapter named 'ours'; there are: bearer"):
        await Runtime(settings(server=OURS), app=Echo).initialize()


async def test_our_own_by_its_name_needs_something_to_know_callers_by() -> None:
    with pytest.raises(UserError, match=r"^server\.auth: set tokens, tokens_file or jwt"):
        await Runtime(settings(server={"auth": {"provider": "bearer"}}), app=Echo).initialize()
