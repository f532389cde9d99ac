"""``/health`` says that the process lives, ``/ready`` whether it should get requests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, Service, SessionContext
from agentscope.server import create_app
from agentscope.session import InMemorySessionRepository
from serving import Echo, invocation, served


async def test_a_living_process_is_healthy() -> None:
    async with served(Echo, platform={"instance_id": "replica-7"}) as server:
        response = await server.client.get("/health")
        document = await response.json()
    assert response.status == 200
    assert list(document) == ["status", "instance_id", "uptime", "version"]
    assert (document["status"], document["instance_id"]) == ("healthy", "replica-7")
    assert document["uptime"] >= 0


async def test_a_running_server_is_ready_with_each_dependency() -> None:
    async with served(Echo) as server:
        response = await server.client.get("/ready")
        assert (response.status, await response.json()) == (
            200,
            {"status": "ready", "dependencies": {"database": "up"}},
        )


async def test_a_database_that_does_not_answer_makes_it_unready_without_telling_why() -> None:
    class Down(InMemorySessionRepository):
        async def ping(self) -> None:
            raise OSError("postgresql://user:hunter2@db")

    async with served(Echo) as server:
        with server.runtime.override(session_repository=Down()):
            response = await server.client.get("/ready")
            text = await response.text()
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert text == '{"status":"not_ready","dependencies":{"database":"down"}}'


async def test_a_draining_server_is_healthy_and_not_ready_and_takes_no_invocation() -> None:
    release = asyncio.Event()

    class Holds(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            yield msg
            await release.wait()

    async with served(Holds) as server:
        running = await server.post(invocation())
        await running.content.readline()
        draining = asyncio.create_task(server.runtime.drain(5))
        await asyncio.sleep(0)
        assert (await server.client.get("/health")).status == 200
        ready = await server.client.get("/ready")
        assert (ready.status, (await ready.json())["status"]) == (503, "draining")
        refused = await server.post(invocation(session_id="other"))
        assert (refused.status, (await refused.json())["error"]["code"]) == (503, "NOT_READY")
        assert refused.headers["Retry-After"] == "1"
        release.set()
        await draining
        assert b'"done":true' in await running.read()


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_no_cache_on_the_way_answers_for_the_process(path: str) -> None:
    async with served(Echo) as server:
        assert (await server.client.get(path)).headers["Cache-Control"] == "no-store"
        await server.runtime.drain(0)
        assert (await server.client.get(path)).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("auth", [False, True], ids=["open", "with tokens"])
async def test_why_a_reload_failed_is_told_only_where_everyone_may_call(tmp_path: Path, auth: bool) -> None:
    (tmp_path / "app.py").write_text("from agentscope.runtime import AgentApp\n\n\nclass App(AgentApp):\n    pass\n")
    config = tmp_path / "agentapp.yaml"
    config.write_text("server: {auth: {tokens: [alice alices-token-0123]}}\n" if auth else "server: {}\n")
    service = Service(Runtime.from_project(tmp_path))
    async with TestClient(TestServer(create_app(service))) as client:
        (tmp_path / "app.py").write_text("raise ValueError('of the house')\n")
        with pytest.raises(UserError):
            await service.reload()
        ready = await client.get("/ready")
        told = (await ready.json())["reload_error"]
    assert ready.status == 200
    assert told == "the log says why" if auth else "app.py:1" in told
