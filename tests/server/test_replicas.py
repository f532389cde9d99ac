"""Invocations are ended, and replaced, wherever they run."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime
from agentscope.session import InMemorySessionRepository
from serving import Served, invocation, served


class Waits(AgentApp):
    """Says a line, and then nothing more."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield one message."""
        yield Msg("assistant", "waiting", "assistant")
        await asyncio.Event().wait()


class Remembers(AgentApp):
    """Uses its session: says what it was told before, and waits when it is told to."""

    async def on_startup(self) -> None:
        """Make the memory."""
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield one message."""
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        before = [said.get_text_content() for said in await self.memory.get_memory()]
        yield Msg("assistant", f"{before}", "assistant")
        if msg.get_text_content() == "wait":
            await asyncio.Event().wait()
        await self.memory.add(msg)
        await runtime.session.save_session_state(ctx.session_id, memory=self.memory)


@asynccontextmanager
async def replicas(app: type[AgentApp], **sections: Any) -> AsyncGenerator[tuple[Served, Served]]:
    """Two servers that share a store."""
    store = InMemorySessionRepository()
    async with served(app, repository=store, **sections) as one, served(app, repository=store, **sections) as two:
        yield one, two


async def test_an_invocation_is_cancelled_through_any_replica() -> None:
    async with replicas(Waits) as (one, two):
        response = await one.post(invocation())
        await response.content.readline()
        cancelled = await two.client.post("/sessions/s1/cancel")
        assert cancelled.status == 202
        trailer = json.loads((await response.text()).splitlines()[-1])
        assert trailer["error"]["code"] == "CANCELLED"
        # There is none any more, anywhere.
        assert (await two.client.post("/sessions/s1/cancel")).status == 404


async def test_an_invocation_that_waits_for_its_session_elsewhere_is_cancelled_too() -> None:
    async with replicas(Remembers) as (one, two):
        running = await one.post(invocation("wait"))
        await running.content.readline()
        waiting = asyncio.create_task(two.post(invocation()))
        while (await one.client.post("/sessions/s1/cancel")).status != 202:
            pass
        assert json.loads((await running.text()).splitlines()[-1])["error"]["code"] == "CANCELLED"
        assert (await waiting).status == 200


async def test_a_newer_message_takes_the_place_of_the_one_that_another_replica_answers() -> None:
    sections = {"session": {"on_conflict": "replace", "backend": "memory"}}
    async with replicas(Remembers, **sections) as (one, two):
        running = await one.post(invocation("wait"))
        await running.content.readline()
        lines = await two.lines(invocation("new"))
        assert lines[0]["content"] == "[]"
        trailer = json.loads((await running.text()).splitlines()[-1])
        assert trailer["error"]["code"] == "CANCELLED"
        assert "newer message" in trailer["error"]["message"]
        assert (await one.lines(invocation("last")))[0]["content"] == "['new']"


async def test_of_many_messages_that_replace_each_other_at_two_replicas_one_is_answered() -> None:
    sections = {"session": {"on_conflict": "replace", "backend": "memory"}}
    async with replicas(Remembers, **sections) as servers:
        running = await servers[0].post(invocation("wait"))
        await running.content.readline()
        answers = await asyncio.gather(*(servers[turn % 2].post(invocation(f"m{turn}")) for turn in range(8)))
        texts = [await answer.text() for answer in answers]
        whole = [text for text in texts if '"done":true,"usage"' in text.splitlines()[-1]]
        assert whole
        assert {answer.status for answer in answers} <= {200, 409}
        said = (await servers[0].lines(invocation("last")))[0]["content"]
        assert said.count("m") == len(whole)
