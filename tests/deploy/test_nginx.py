"""``deploy/nginx.conf`` in a real nginx: no turn is sent twice, and what can go to another replica does."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from deploy.proxy import command, configuration, running_nginx

REQUESTS = 6
"""More than one for each of two replicas, whoever is next."""


class Replica:
    """What stands for a replica: it counts the requests, by id, and behaves in one way."""

    def __init__(self, behaviour: str) -> None:
        self.received: Counter[str] = Counter()
        self.port = 0
        self._behaviour = behaviour

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        """On a port; behind that of one that ``refuses`` nobody listens any more."""
        app = web.Application(client_max_size=20 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            if self._behaviour == "refuses":
                await site.stop()
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        size = len(await request.read())
        self.received[request.headers["X-Request-Id"]] += 1
        if self._behaviour == "dies":
            assert request.transport is not None
            request.transport.abort()
        if self._behaviour == "stops":
            return web.json_response({"error": {"code": "NOT_READY"}}, status=503, headers={"Retry-After": "1"})
        return web.json_response({"path": request.raw_path, "host": request.host, "size": size})


@asynccontextmanager
async def pair(behaviour: str, folder: Path) -> AsyncGenerator[tuple[ClientSession, Replica, Replica]]:
    """A client of nginx, in front of a replica that behaves so and of one that serves."""
    failing, serving = Replica(behaviour), Replica("serves")
    async with failing.serving(), serving.serving():
        with running_nginx(folder, failing.port, serving.port) as address:
            async with ClientSession(address) as client:
                yield client, failing, serving


async def ask(client: ClientSession, method: str) -> list[tuple[int, str | None]]:
    """Several requests, one after the other: the status of each, and its ``Retry-After``."""
    answers: list[tuple[int, str | None]] = []
    for number in range(REQUESTS):
        body = f"turn {number}" if method == "POST" else None
        headers = {"X-Request-Id": f"r{number}"}
        async with client.request(method, "/invoke", headers=headers, data=body) as response:
            answers.append((response.status, response.headers.get("Retry-After")))
    return answers


async def test_the_configuration_is_one(tmp_path: Path) -> None:
    file = configuration(tmp_path, 8080, [8081, 8082])
    checked = command(file, "-t")
    done = await asyncio.to_thread(subprocess.run, checked, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize("behaviour", ["dies", "stops", "serves"])
async def test_a_turn_that_was_sent_is_not_sent_again(behaviour: str, tmp_path: Path) -> None:
    async with pair(behaviour, tmp_path) as (client, failing, serving):
        answers = await ask(client, "POST")
    received = failing.received + serving.received
    assert received == {f"r{number}": 1 for number in range(REQUESTS)}
    assert failing.received
    failure = {"dies": (502, None), "stops": (503, "1"), "serves": (200, None)}[behaviour]
    assert sorted(answers) == sorted([(200, None)] * serving.received.total() + [failure] * failing.received.total())


async def test_a_turn_that_a_replica_did_not_take_goes_to_the_other(tmp_path: Path) -> None:
    async with pair("refuses", tmp_path) as (client, _, serving):
        assert await ask(client, "POST") == [(200, None)] * REQUESTS
    assert serving.received == {f"r{number}": 1 for number in range(REQUESTS)}


@pytest.mark.parametrize("behaviour", ["dies", "stops", "refuses"])
async def test_what_changes_nothing_is_asked_of_the_other_replica(behaviour: str, tmp_path: Path) -> None:
    async with pair(behaviour, tmp_path) as (client, _, serving):
        assert await ask(client, "GET") == [(200, None)] * REQUESTS
    assert serving.received.total() == REQUESTS


async def test_a_request_arrives_as_it_was_sent(tmp_path: Path) -> None:
    async with pair("serves", tmp_path) as (client, *replicas):
        # A session's id may hold an escaped slash, and a body as much as the kernel takes.
        path, size = "/sessions/a%2Fb%20c?limit=1", 10 * 2**20
        async with client.post(path, data=BytesIO(bytes(size)), headers={"Host": "agents.example.com"}) as response:
            assert await response.json() == {"path": path, "host": "agents.example.com", "size": size}
        async with client.get("/metrics") as response:
            assert response.status == 404
    # A request without an id gets one.
    [(request_id, count)] = (replicas[0].received + replicas[1].received).items()
    assert (len(request_id), count) == (32, 1)
