"""Keys from a URL: fetched again before they are old, looked for when they are new, and used while the server is down.

No request with a known key waits for any of it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from agentscope.errors import AuthenticatorUnavailableError, UserError
from agentscope.runtime.settings import AuthSettings, JwtSettings
from agentscope_adapters.auth._jwks import FetchedKeys, Timing
from agentscope_adapters.auth.bearer import open_authenticator
from agentscope_adapters.auth.jwt import open_verifier, read_key_set
from auth.clock import Clock
from auth.key_server import KeyServer
from auth.signing import AUDIENCE, bearer, jwk, key_set, sign
from serving import Echo, served

parse = partial(read_key_set, algorithms=["RS256"])
NEVER = 3600.0


@asynccontextmanager
async def fetched(server: KeyServer, clock: Callable[[], float], **timing: float) -> AsyncGenerator[FetchedKeys]:
    """Keys that are not fetched again by themselves, unless ``timing`` says so."""
    times = Timing(**{"refresh": NEVER, "retry": NEVER, **timing})
    async with FetchedKeys.open(server.url, parse, timing=times, clock=clock) as keys:
        yield keys


async def test_a_token_is_checked_with_the_keys_at_the_url(
    key: RSAPrivateKey, other_key: RSAPrivateKey, key_server: KeyServer
) -> None:
    key_server.content = key_set(jwk(key, "a"))
    jwt = {"algorithms": ["RS256"], "jwks": key_server.url, "audience": AUDIENCE}
    async with served(Echo, server={"auth": {"jwt": jwt, "tokens": ["bob bobs-token-0123456"]}}) as server:

        async def status(token: str) -> int:
            return (await server.client.get("/sessions", headers=bearer(token))).status

        assert await status(sign(key, headers={"kid": "a"})) == 200
        assert await status(sign(key)) == 200
        assert await status(sign(other_key, headers={"kid": "a"})) == 401
        assert await status(sign(other_key, headers={"kid": "unknown"})) == 401
        assert await status("bobs-token-0123456") == 200
    assert key_server.requests == 1


async def test_an_unknown_key_is_looked_for_at_most_every_ten_seconds_by_one_fetch_for_all(
    key: RSAPrivateKey, other_key: RSAPrivateKey, key_server: KeyServer
) -> None:
    key_server.content = key_set(jwk(key, "a"))
    clock = Clock()
    async with fetched(key_server, clock) as keys:
        key_server.content = key_set(jwk(key, "a"), jwk(other_key, "b"))
        clock.pass_by(9.9)
        assert await keys.find("b", "RS256") is None
        assert key_server.requests == 1
        clock.pass_by(0.2)
        found = await asyncio.gather(*(keys.find(name, "RS256") for name in ("b", "c", "b", "d")))
        assert [key is not None for key in found] == [True, False, True, False]
        assert key_server.requests == 2
        assert await keys.find("c", "RS256") is None
        assert key_server.requests == 2


async def test_a_known_key_does_not_wait_for_a_slow_server(key: RSAPrivateKey, key_server: KeyServer) -> None:
    key_server.content = key_set(jwk(key, "a"))
    clock = Clock()
    async with fetched(key_server, clock) as keys:
        key_server.gate.clear()
        clock.pass_by(11)
        waiting = asyncio.create_task(keys.find("b", "RS256"))
        await key_server.next_request()
        assert await keys.find("a", "RS256") is not None
        assert not waiting.done()
        key_server.gate.set()
        assert await waiting is None


async def test_whoever_stops_waiting_takes_the_fetch_from_nobody(key: RSAPrivateKey, key_server: KeyServer) -> None:
    key_server.content = key_set(jwk(key, "a"))
    clock = Clock()
    async with fetched(key_server, clock) as keys:
        key_server.gate.clear()
        key_server.content = key_set(jwk(key, "b"))
        clock.pass_by(11)
        first, second = (asyncio.create_task(keys.find("b", "RS256")) for _ in range(2))
        await key_server.next_request()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        key_server.gate.set()
        assert await second is not None


async def test_keys_are_fetched_again_in_the_background(key: RSAPrivateKey, key_server: KeyServer) -> None:
    key_server.content = key_set(jwk(key, "old"))
    async with fetched(key_server, Clock(), refresh=0.01) as keys:
        key_server.content = key_set(jwk(key, "new"))
        await key_server.next_request()
        await key_server.next_request()
        assert await keys.find("new", "RS256") is not None
        assert await keys.find("old", "RS256") is None


def down(server: KeyServer) -> None:
    server.status = 500


def garbage(server: KeyServer) -> None:
    server.content = b"<html>hunter2</html>"


def large(server: KeyServer) -> None:
    server.content = b" " * (1024 * 1024 + 1)


def elsewhere(server: KeyServer) -> None:
    server.status = 302


def empty(server: KeyServer) -> None:
    server.content = b'{"keys": []}'


def silent(server: KeyServer) -> None:
    server.gate.clear()


BAD_DAYS = [
    (down, "the server answered 500"),
    (garbage, "it is not JSON"),
    (large, "it is larger than 1048576 bytes"),
    (elsewhere, "the server answered 302"),
    (empty, "it holds no public key for RS256"),
]


@pytest.mark.parametrize(("spoil", "reason"), [*BAD_DAYS, (silent, "no answer within 0.2 seconds")])
async def test_without_keys_the_server_does_not_start(
    key: RSAPrivateKey, key_server: KeyServer, spoil: Callable[[KeyServer], None], reason: str
) -> None:
    key_server.content = key_set(jwk(key, "a"))
    spoil(key_server)
    with pytest.raises(UserError, match=rf"^server\.auth\.jwt\.jwks: the key set can't be fetched: {reason}$"):
        async with fetched(key_server, Clock(), answer=0.2 if spoil is silent else 60.0):
            pass


async def test_a_server_that_is_not_there_is_an_error_at_start_without_its_password() -> None:
    settings = AuthSettings(jwt=JwtSettings(algorithms=("RS256",), jwks="http://user:hunter2@127.0.0.1:9/keys"))
    with pytest.raises(UserError, match="connection refused") as caught:
        async with open_authenticator(settings, Path()):
            pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("spoil", "reason"), BAD_DAYS)
async def test_the_keys_of_before_are_used_for_a_day_and_then_nobody_is_known(
    key: RSAPrivateKey,
    key_server: KeyServer,
    spoil: Callable[[KeyServer], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    good = key_server.content = key_set(jwk(key, "a"))
    clock = Clock()
    async with fetched(key_server, clock) as keys:
        spoil(key_server)
        for _ in range(3):
            clock.pass_by(11)
            with pytest.raises(AuthenticatorUnavailableError):
                await keys.find("b", "RS256")
        assert await keys.find("a", "RS256") is not None
        clock.pass_by(24 * 3600 - 34)
        assert await keys.find("a", "RS256") is not None
        clock.pass_by(2)
        with pytest.raises(AuthenticatorUnavailableError):
            await keys.find("a", "RS256")
        key_server.content, key_server.status = good, 200
        clock.pass_by(11)
        assert await keys.find("a", "RS256") is not None
        assert await keys.find("b", "RS256") is None
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    told = "server.auth.jwt.jwks: the key set can't be fetched, the keys of before are used"
    assert errors == [f"{told}: {reason}"]
    assert "hunter2" not in caplog.text


async def test_a_fetch_that_failed_is_tried_again_soon(key: RSAPrivateKey, key_server: KeyServer) -> None:
    key_server.content = key_set(jwk(key, "a"))
    async with fetched(key_server, Clock(), refresh=0.01, retry=0.01) as keys:
        down(key_server)
        await key_server.next_request()
        await key_server.next_request()
        assert await keys.find("a", "RS256") is not None
        key_server.status, key_server.content = 200, key_set(jwk(key, "b"))
        await key_server.next_request()
        await key_server.next_request()
        assert await keys.find("b", "RS256") is not None


async def test_nothing_is_left_when_it_closes(key: RSAPrivateKey, key_server: KeyServer) -> None:
    key_server.content = key_set(jwk(key, "a"))
    before = asyncio.all_tasks()
    clock = Clock()
    async with fetched(key_server, clock) as keys:
        key_server.gate.clear()
        clock.pass_by(11)
        waiting = asyncio.create_task(keys.find("b", "RS256"))
        await key_server.next_request()
    assert await waiting is None
    ours = {task for task in asyncio.all_tasks() - before if "FetchedKeys" in repr(task)}
    assert not ours


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("192.0.2.1", True), ("keys.example.com", True)]
)
async def test_keys_that_can_be_changed_on_their_way_are_warned_about(
    host: str, warned: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> bytes:
        raise ConnectionRefusedError

    monkeypatch.setattr(FetchedKeys, "_download", refused)
    settings = JwtSettings(algorithms=("RS256",), jwks=f"http://{host}/keys", audience=AUDIENCE)
    with pytest.raises(UserError):
        async with open_verifier(settings, Path()):
            pass
    assert ("plain HTTP" in caplog.text) is warned
