"""``/health`` says that the process lives, ``/ready`` whether it should get requests."""

import asyncio
from collections.abc import AsyncIterator

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext
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
