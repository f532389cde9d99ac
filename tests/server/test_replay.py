"""An answer is read again: after a lost connection, at another replica, or by a request that is sent twice."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime
from agentscope.session import InMemorySessionRepository
from serving import Echo, Served, invocation, served, until_waiting

KEPT: dict[str, Any] = {"replay_ttl": 60, "on_disconnect": "continue"}
SSE = {"Accept": "text/event-stream"}


class Gate:
    """Lets an app go on, line by line."""

    def __init__(self) -> None:
        self._open = asyncio.Semaphore(0)
        self.runs = 0
        self.cancelled = asyncio.Event()

    def allow(self, lines: int) -> None:
        """Let it say so many more lines."""
        for _ in range(lines):
            self._open.release()

    async def passed(self) -> None:
        """Return when one more line is allowed."""
        await self._open.acquire()

    def app(self, lines: int, *, fails: bool = False) -> type[AgentApp]:
        """An app that says the numbers from 1 on."""
        gate = self

        class Numbers(AgentApp):
            async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
                gate.runs += 1
                for number in range(1, lines + 1):
                    try:
                        await gate.passed()
                    except asyncio.CancelledError:
                        gate.cancelled.set()
                        raise
                    yield Msg("assistant", str(number), "assistant")
                if fails:
                    raise ValueError("out of numbers")

        return Numbers


async def read(response: ClientResponse, lines: int) -> list[str]:
    """So many lines, without the signs of life."""
    read: list[str] = []
    while len(read) < lines:
        line = await response.content.readline()
        assert line, "the stream ended"
        if line.strip():
            read.append(line.decode())
    return read


async def resumed(server: Served, invocation_id: str, after: int = 0, **options: Any) -> ClientResponse:
    return await server.client.get(f"/invocations/{invocation_id}/stream", params={"after": after}, **options)


@asynccontextmanager
async def replicas(app: type[AgentApp], **server: Any) -> AsyncGenerator[tuple[Served, Served]]:
    """Two servers that share a store."""
    store = InMemorySessionRepository()
    async with (
        served(app, repository=store, server=KEPT | server) as first,
        served(app, repository=store, server=KEPT | server) as second,
    ):
        yield first, second


async def test_a_client_that_loses_its_connection_ten_times_has_the_unbroken_stream_in_the_end() -> None:
    gate = Gate()
    async with replicas(gate.app(44)) as servers:
        gate.allow(4)
        response = await servers[0].post(invocation())
        invocation_id = response.headers["X-Invocation-Id"]
        lines = await read(response, 4)
        for turn in range(10):
            response.close()
            gate.allow(4)
            response = await resumed(servers[turn % 2], invocation_id, len(lines))
            assert response.status == 200
            assert response.headers["X-Invocation-Id"] == invocation_id
            lines += await read(response, 4)
        lines += (await response.text()).splitlines(keepends=True)
        unbroken = await (await resumed(servers[1], invocation_id)).text()
    assert "".join(lines) == unbroken
    assert [json.loads(line).get("content") for line in lines] == [*map(str, range(1, 45)), None]
    assert json.loads(lines[-1])["metadata"]["done"] is True


async def test_a_browser_goes_on_after_the_last_event_it_saw() -> None:
    gate = Gate()
    gate.allow(3)
    async with served(gate.app(3), server=KEPT) as server:
        response = await server.post(invocation(), headers=SSE)
        text = await response.text()
        invocation_id = response.headers["X-Invocation-Id"]
        events = [event.split("\n") for event in text.split("\n\n")[:-1]]
        assert [event[0] for event in events] == ["id: 1", "id: 2", "id: 3", "id: 4"]
        assert events[-1][1] == "event: done"
        # Its URL stays what it was.
        response = await resumed(server, invocation_id, 1, headers=SSE | {"Last-Event-ID": "3"})
        comments = ": keep-alive\n\n"
        assert (await response.text()).replace(comments, "").split("\n") == [*events[-1], "", ""]
        # It connects again after the end, until it is told that there is no more.
        response = await resumed(server, invocation_id, 1, headers=SSE | {"Last-Event-ID": "4"})
        assert response.status == 204


async def test_an_answer_is_read_again_as_one_document() -> None:
    gate = Gate()
    gate.allow(2)
    async with served(gate.app(2), server=KEPT) as server:
        response = await server.post(invocation(), params={"stream": "false"})
        document = await response.json()
        again = await resumed(server, response.headers["X-Invocation-Id"], 1, headers={"Accept": "application/json"})
        rest = await again.json()
    assert rest == {**document, "messages": document["messages"][1:]}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param("/invocations/unknown/stream", {}, 404, id="never was"),
        pytest.param("/invocations/%00/stream", {}, 404, id="no id at all"),
        pytest.param("/invocations/unknown/stream?after=-1", {}, 400, id="no number"),
        pytest.param("/invocations/unknown/stream?after=1&after=2", {}, 400, id="two numbers"),
        pytest.param("/invocations/unknown/stream?aftr=1", {}, 400, id="a typing error"),
        pytest.param("/invocations/unknown/stream", {"Last-Event-ID": "x"}, 400, id="no event of ours"),
    ],
)
async def test_what_can_not_be_read_again_is_refused(path: str, headers: dict[str, str], status: int) -> None:
    async with served(Echo, server=KEPT) as server:
        response = await server.client.get(path, headers=headers)
        assert response.status == status
        assert (await response.json())["error"]["code"] in {"NOT_FOUND", "INVALID_REQUEST"}


async def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    async with served(Echo) as server:
        response = await server.post(invocation())
        await response.read()
        again = await resumed(server, response.headers["X-Invocation-Id"])
        assert again.status == 404
        response = await server.post(invocation(), headers={"Idempotency-Key": "k"})
        assert response.status == 400
        assert "server.replay_ttl" in (await response.json())["error"]["message"]


async def test_a_request_that_is_sent_twice_is_answered_once() -> None:
    gate = Gate()
    async with replicas(gate.app(2)) as servers:
        key = {"Idempotency-Key": "k1"}
        gate.allow(1)
        first = await servers[0].post(invocation(), headers=key)
        lines = await read(first, 1)
        second = await servers[1].post(invocation(), headers=key)
        assert second.headers["X-Invocation-Id"] == first.headers["X-Invocation-Id"]
        gate.allow(1)
        whole = "".join(lines) + await first.text()
        assert await second.text() == whole
        late = await servers[0].post(invocation(), headers=key)
        assert await late.text() == whole
        assert gate.runs == 1
        gate.allow(2)
        other = await servers[0].post(invocation(session_id="s2"), headers=key)
        await other.read()
        assert gate.runs == 2


async def test_a_key_is_for_one_request() -> None:
    async with served(Echo, server=KEPT) as server:
        key = {"Idempotency-Key": "k1"}
        await (await server.post(invocation("one"), headers=key)).read()
        response = await server.post(invocation("two"), headers=key)
        assert response.status == 409
        assert (await response.json())["error"]["details"][0]["path"] == "Idempotency-Key"


async def test_a_failure_is_answered_again_as_it_was() -> None:
    gate = Gate()
    async with served(gate.app(0, fails=True), server=KEPT) as server:
        key = {"Idempotency-Key": "k1"}
        answers = [await server.post(invocation(), headers=key) for _ in range(2)]
        assert [answer.status for answer in answers] == [500, 500]
        errors = [(await answer.json())["error"] for answer in answers]
    assert [error["code"] for error in errors] == ["APP_ERROR", "APP_ERROR"]
    assert gate.runs == 1


async def test_a_request_that_was_refused_may_be_sent_again_with_its_key() -> None:
    gate = Gate()
    async with served(gate.app(1), server=KEPT, session={"backend": "memory", "on_conflict": "reject"}) as server:
        running = asyncio.create_task(server.post(invocation()))
        while not gate.runs:  # noqa: ASYNC110 - a number that nobody announces
            await asyncio.sleep(0)
        refused = await server.post(invocation("other"), headers={"Idempotency-Key": "k"})
        assert refused.status == 409
        gate.allow(2)
        await (await running).read()
        again = await server.post(invocation("other"), headers={"Idempotency-Key": "k"})
        assert again.status == 200


async def test_without_its_client_an_invocation_goes_on_and_saves() -> None:
    gate = Gate()

    class Remembers(AgentApp):
        async def on_startup(self) -> None:
            self.memory = InMemoryMemory()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
            await self.memory.add(msg)
            yield Msg("assistant", "1", "assistant")
            await gate.passed()
            yield Msg("assistant", "2", "assistant")
            await runtime.session.save_session_state(ctx.session_id, memory=self.memory)

    async with served(Remembers, server={"on_disconnect": "continue"}) as server:
        response = await server.post(invocation())
        await response.content.readline()
        response.close()
        gate.allow(1)
        # The next turn waits for the one that goes on.
        deleted = await server.client.delete("/sessions/s1")
        assert deleted.status == 204


async def test_an_invocation_that_ends_with_its_client_says_so_to_who_reads_it_again() -> None:
    gate = Gate()
    gate.allow(1)
    async with served(gate.app(2), server={"replay_ttl": 60}) as server:
        response = await server.post(invocation())
        await response.content.readline()
        response.close()
        again = await resumed(server, response.headers["X-Invocation-Id"])
        lines = [json.loads(line) for line in (await again.text()).splitlines() if line]
    assert [line.get("content") for line in lines] == ["1", None]
    assert lines[-1]["error"]["code"] == "CANCELLED"


async def test_a_server_that_stops_ends_what_goes_on_without_its_client_and_keeps_how_it_ended() -> None:
    gate = Gate()
    gate.allow(1)
    store = InMemorySessionRepository()
    async with served(gate.app(2), repository=store, server=KEPT | {"shutdown_timeout": 0}) as server:
        response = await server.post(invocation())
        await response.content.readline()
        response.close()
        invocation_id = response.headers["X-Invocation-Id"]
    async with served(gate.app(2), repository=store, server=KEPT) as server:
        again = await resumed(server, invocation_id)
        assert json.loads((await again.text()).splitlines()[-1])["error"]["code"] == "CANCELLED"


async def test_what_comes_while_the_store_is_slow_is_neither_lost_nor_late() -> None:
    class Bulky(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            yield Msg("assistant", "x" * 300_000, "assistant")
            await asyncio.sleep(0.01)
            yield Msg("assistant", "tail", "assistant")

    async with served(Bulky, server=KEPT) as server:
        response = await server.post(invocation())
        text = await response.text()
        again = await resumed(server, response.headers["X-Invocation-Id"])
        assert await again.text() == text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line.get("content", "")[:4] for line in lines] == ["xxxx", "tail", ""]
    assert lines[-1]["metadata"]["done"] is True


@pytest.mark.parametrize("on_disconnect", ["cancel", "continue"])
async def test_a_client_that_left_before_the_first_line_sends_its_message_again(on_disconnect: str) -> None:
    gate = Gate()
    async with served(gate.app(1), server=KEPT | {"on_disconnect": on_disconnect}) as server:
        key = {"Idempotency-Key": "k"}
        first = asyncio.create_task(server.post(invocation(), headers=key))
        while not gate.runs:  # noqa: ASYNC110 - a number that nobody announces
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        if on_disconnect == "cancel":
            await gate.cancelled.wait()
        gate.allow(2)
        again = await server.post(invocation(), headers=key)
        assert again.status == 200
        assert json.loads((await again.text()).splitlines()[0])["content"] == "1"
    assert gate.runs == (2 if on_disconnect == "cancel" else 1)


async def test_a_turn_that_has_saved_is_not_begun_again_though_its_client_left_before_the_first_line() -> None:
    saved, runs = asyncio.Event(), list[Msg]()

    class Saves(AgentApp):
        async def on_startup(self) -> None:
            self.memory = InMemoryMemory()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            runs.append(msg)
            await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
            await self.memory.add(msg)
            await runtime.session.save_session_state(ctx.session_id, memory=self.memory)
            saved.set()
            await asyncio.Event().wait()
            yield msg

    async with served(Saves, server={"replay_ttl": 60, "on_disconnect": "cancel"}) as server:
        key = {"Idempotency-Key": "k"}
        first = asyncio.create_task(server.post(invocation(), headers=key))
        await saved.wait()
        first.cancel()
        await asyncio.wait([first])
        async with asyncio.timeout(10):
            again = await server.post(invocation(), headers=key)
            assert "CANCELLED" in await again.text()
    assert len(runs) == 1


async def test_a_repeat_of_a_request_that_is_refused_takes_its_place() -> None:
    gate = Gate()
    session = {"backend": "memory", "queue_timeout": 0.3}
    async with served(gate.app(1), server=KEPT, session=session) as server:
        key = {"Idempotency-Key": "k"}
        running = asyncio.create_task(server.post(invocation("other")))
        while not gate.runs:  # noqa: ASYNC110 - a number that nobody announces
            await asyncio.sleep(0)
        queued = asyncio.create_task(server.post(invocation(), headers=key))
        await until_waiting(server.runtime, 1)
        repeated = asyncio.create_task(server.post(invocation(), headers=key))
        assert (await queued).status == 409
        # Now it is the one that waits.
        await until_waiting(server.runtime, 1)
        gate.allow(2)
        assert (await running).status == 200
        assert (await repeated).status == 200
    assert gate.runs == 2


async def test_the_key_of_an_answer_that_is_too_large_to_be_kept_begins_no_second_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentscope.session._recording.LARGEST_RECORDING", 300)
    gate = Gate()
    gate.allow(40)
    session = {"backend": "memory", "lease_ttl": 0.5}
    async with served(gate.app(20), server=KEPT, session=session) as server:
        key = {"Idempotency-Key": "k"}
        response = await server.post(invocation(), headers=key)
        assert '"done":true,"usage"' in await response.text()
        again = await server.post(invocation(), headers=key)
        assert "is not kept" in await again.text()
    assert gate.runs == 1
