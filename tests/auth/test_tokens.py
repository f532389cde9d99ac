"""Who may call, on a real server: with a listed token everyone who has one, without it nobody, and nothing is told."""

import json
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, hdrs, web

from agentscope.auth import Authenticator, bearer_token
from agentscope.errors import UnauthorizedError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext
from agentscope.server import create_app
from auth.signing import bearer
from serving import Echo, Served, invocation, served

ALICE, ALICES_NEXT, UNNAMED = "alices-token-0123", "alices-next-token-4567", "0123456789abcdef"
TOKENS = [f"alice {ALICE}", f"alice {ALICES_NEXT}", UNNAMED]
AUTH = {"auth": {"tokens": TOKENS}}


class Tells(AgentApp):
    """Says who calls."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        yield Msg("assistant", json.dumps(ctx.identity), "assistant")


async def who(server: Served, headers: dict[str, str]) -> object:
    """Whom the app takes the caller for."""
    lines = await server.lines(invocation(), headers=headers)
    return json.loads(lines[0]["content"])


async def refusal(server: Served, headers: object, path: str = "/sessions") -> tuple[int, str, str, str | None]:
    """The status, the code, the message and the challenge of a call that is refused."""
    response = await server.client.get(path, headers=headers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - also what isn't typed
    error = (await response.json())["error"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    return response.status, error["code"], error["message"], response.headers.get("WWW-Authenticate")


async def test_each_call_but_the_probes_needs_a_token() -> None:
    async with served(Echo, server=AUTH) as server:
        calls = {
            (route.method.replace("*", "PUT"), route.resource.canonical.replace("{session_id}", "s1"))
            for route in create_app(server.runtime).router.routes()
            if route.resource is not None
        }
        assert {("POST", "/invoke"), ("GET", "/sessions"), ("HEAD", "/health")} <= calls
        for method, path in sorted(calls):
            response = await server.client.request(method, path.replace("{path}", "nowhere"))
            is_open = path in {"/health", "/ready"}
            assert response.status == (200 if is_open else 401), (method, path)
            assert response.headers.get("WWW-Authenticate") == (None if is_open else "Bearer")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/no%0Awhere", "/", "/health/", "/sessions/a/b", "/openapi.json", "/metrics", "/healthy"]
)
async def test_a_path_without_a_route_tells_nothing_to_who_may_not_call(path: str) -> None:
    async with served(Echo, server=AUTH) as server:
        assert (await server.client.get(path)).status == 401
        assert (await server.client.get(path, headers=bearer(UNNAMED))).status in {200, 404}


async def test_another_method_is_told_to_who_may_call_alone() -> None:
    async with served(Echo, server=AUTH) as server:
        assert (await server.client.post("/health")).status == 401
        assert (await server.client.post("/health", headers=bearer(UNNAMED))).status == 405


async def test_a_token_says_who_calls() -> None:
    async with served(Tells, server=AUTH) as server:
        assert await who(server, bearer(ALICE)) == {"sub": "alice"}
        assert await who(server, bearer(ALICES_NEXT)) == {"sub": "alice"}
        # printf 0123456789abcdef | sha256sum
        assert await who(server, bearer(UNNAMED)) == {"sub": "token-9f9f5111f7b27a78"}


async def test_without_settings_everyone_may_call_and_is_nobody() -> None:
    async with served(Tells) as server:
        assert await who(server, {}) is None
        assert await who(server, bearer("whatever it is")) is None


NONE = ("no bearer token: send `Authorization: Bearer …`", "Bearer")
WRONG = ("the token is not valid", 'Bearer error="invalid_token"')


@pytest.mark.parametrize(
    ("header", "told"),
    [
        pytest.param(None, NONE, id="nothing"),
        pytest.param("", NONE, id="empty"),
        pytest.param(UNNAMED, NONE, id="no scheme"),
        pytest.param(f"Basic {UNNAMED}", NONE, id="another scheme"),
        pytest.param("Bearer", NONE, id="scheme alone"),
        pytest.param("Bearer ", NONE, id="scheme and a blank"),
        pytest.param(f"Bearer {UNNAMED}x", WRONG, id="longer"),
        pytest.param(f"Bearer {UNNAMED[:-1]}", WRONG, id="shorter"),
        pytest.param(f"Bearer {UNNAMED.upper()}", WRONG, id="in capitals"),
        pytest.param(f"Bearer {ALICE} {ALICE}", WRONG, id="two tokens"),
        pytest.param(f"Bearer alice {ALICE}", WRONG, id="with the name"),
        pytest.param("Bearer \u00e4\u00f6\u00fc-0123456789abcdef", WRONG, id="not ASCII"),
        pytest.param("Bearer a.b.c", WRONG, id="a JWT where none is taken"),
    ],
)
async def test_a_refusal_says_what_is_wrong_and_nothing_of_the_token(
    header: str | None, told: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(Echo, server=AUTH) as server:
        headers = {} if header is None else {"Authorization": header}
        assert await refusal(server, headers) == (401, "UNAUTHORIZED", *told)
    assert not any(token in caplog.text for token in (ALICE, ALICES_NEXT, UNNAMED))


@pytest.mark.parametrize("header", [f"bearer {UNNAMED}", f"BEARER   {UNNAMED}", f"Bearer {UNNAMED} "])
async def test_the_scheme_may_be_written_in_any_case_with_blanks_around_the_token(header: str) -> None:
    async with served(Echo, server=AUTH) as server:
        response = await server.client.get("/sessions", headers={"aUTHORIZATION": header})
        assert response.status == 200


async def test_two_callers_in_one_request_are_nobody() -> None:
    async with served(Echo, server=AUTH) as server:
        headers = [("Authorization", f"Bearer {UNNAMED}"), ("Authorization", f"Bearer {UNNAMED}")]
        assert (await refusal(server, headers))[:3] == (401, "UNAUTHORIZED", "more than one Authorization header")


async def test_the_body_of_who_may_not_call_is_not_looked_at() -> None:
    async with served(Echo, server=AUTH) as server:
        response = await server.client.post("/invoke", data=b"{", headers={"Content-Type": "text/plain"})
        assert response.status == 401


def test_a_header_that_is_longer_than_any_token_is_refused() -> None:
    with pytest.raises(UnauthorizedError, match="the token is too long"):
        bearer_token({hdrs.AUTHORIZATION: "Bearer " + "x" * 100_000})


async def test_one_application_in_another_protects_its_own_paths() -> None:
    async with served(Echo, server=AUTH) as server:
        site = web.Application()
        site.add_subapp("/agent", create_app(server.runtime))
        runner = web.AppRunner(site)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
                statuses = {
                    path: (await client.get(f"/agent{path}")).status for path in ("/health", "/sessions", "/x")
                }
        finally:
            await runner.cleanup()
    assert statuses == {"/health": 200, "/sessions": 401, "/x": 401}


async def test_the_provider_of_the_container_is_what_is_asked() -> None:
    async with served(Echo, server=AUTH) as server:
        assert isinstance(server.runtime.container.authenticator(), Authenticator)
    async with served(Echo) as server:
        assert server.runtime.container.authenticator() is None
