"""What a second message of a busy session does, as its client sees it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext
from serving import Served, invocation, served, until_waiting


class Slow(AgentApp):
    """Says a line, then waits until it is let go or cancelled; "hush" says no line."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: list[str] = []
        self.go_on = asyncio.Event()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        text = str(msg.content)
        if not text.startswith("hush"):
            yield Msg("assistant", text, "assistant")
        self.started.put_nowait(text)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        yield Msg("assistant", f"{text} done", "assistant")


def app_of(server: Served) -> Slow:
    app = server.runtime.app
    assert isinstance(app, Slow)
    return app


async def test_a_newer_message_takes_the_place_of_the_one_that_runs() -> None:
    async with served(Slow, session={"backend": "memory", "on_conflict": "replace"}) as server:
        app = app_of(server)
        first = asyncio.create_task(server.lines(invocation("first")))
        assert await app.started.get() == "first"
        second = asyncio.create_task(server.lines(invocation("second")))
        line, trailer = await asyncio.wait_for(first, 10)
        assert line["content"] == "first"
        assert trailer["error"]["code"] == "CANCELLED"
        assert "a newer message" in trailer["error"]["message"]
        assert await app.started.get() == "second"
        app.go_on.set()
        assert [line.get("content") for line in await second] == ["second", "second done", None]
        assert app.cancelled == ["first"]


async def test_one_that_has_said_nothing_yet_is_told_by_its_status() -> None:
    async with served(Slow, session={"backend": "memory", "on_conflict": "replace"}) as server:
        app = app_of(server)
        first = asyncio.create_task(server.post(invocation("hush")))
        await app.started.get()
        second = asyncio.create_task(server.lines(invocation("second")))
        response = await asyncio.wait_for(first, 10)
        assert response.status == 409
        assert "Retry-After" not in response.headers
        assert (await response.json())["error"]["code"] == "CANCELLED"
        await app.started.get()
        app.go_on.set()
        assert (await second)[-1]["metadata"]["done"] is True


async def test_of_many_at_once_the_last_one_gets_its_answer() -> None:
    async with served(Slow, session={"backend": "memory", "on_conflict": "replace"}) as server:
        app = app_of(server)
        app.go_on.set()
        responses = await asyncio.gather(*(server.post(invocation(f"hush {n}")) for n in range(20)))
        statuses = [response.status for response in responses]
        assert set(statuses) <= {200, 409}
        assert 200 in statuses
        assert (await server.lines(invocation("after")))[-1]["metadata"]["done"] is True


async def test_one_that_waits_for_a_slot_is_replaced_as_well() -> None:
    async with served(
        Slow,
        session={"backend": "memory", "on_conflict": "replace"},
        server={"max_concurrent_invocations": 1},
    ) as server:
        app = app_of(server)
        other = asyncio.create_task(server.lines(invocation("other", session_id="other")))
        await app.started.get()
        first = asyncio.create_task(server.post(invocation("first")))
        await until_waiting(server.runtime, 1)
        second = asyncio.create_task(server.lines(invocation("second")))
        response = await asyncio.wait_for(first, 10)
        assert response.status == 409
        app.go_on.set()
        assert [line.get("content") for line in await second] == ["second", "second done", None]
        await other
        assert app.cancelled == []


@pytest.mark.parametrize("content", ["first", "hush"])
async def test_a_running_invocation_is_cancelled_by_request(content: str) -> None:
    async with served(Slow) as server:
        app = app_of(server)
        first = asyncio.create_task(server.post(invocation(content)))
        await app.started.get()
        answer = await server.client.post("/sessions/s1/cancel")
        assert answer.status == 202
        response = await asyncio.wait_for(first, 10)
        text = await response.text()
        assert '"code":"CANCELLED"' in text
        assert response.status == (409 if content == "hush" else 200)
        # It ends a moment later; then there is nothing to cancel.
        app.go_on.set()
        assert (await server.lines(invocation("next")))[-1]["metadata"]["done"] is True
        assert (await server.client.post("/sessions/s1/cancel")).status == 404
        assert app.cancelled == [content]


@pytest.mark.parametrize("on_conflict", ["queue", "reject", "replace"])
async def test_deleting_a_session_waits_for_its_invocation_whatever_messages_do(on_conflict: str) -> None:
    async with served(Slow, session={"backend": "memory", "on_conflict": on_conflict}) as server:
        app = app_of(server)
        first = asyncio.create_task(server.lines(invocation("first")))
        await app.started.get()
        deleting = asyncio.create_task(server.client.delete("/sessions/s1"))
        done, _ = await asyncio.wait([deleting], timeout=0.2)
        assert not done
        app.go_on.set()
        assert (await first)[-1]["metadata"]["done"] is True
        assert (await deleting).status == 404, "nothing of it was ever stored"
