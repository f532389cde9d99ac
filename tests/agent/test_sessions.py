"""Agents in sessions: many at once on one agent, over a real socket, with clients that leave and turns that fail."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agentscope.agent import ReActAgent
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModelBase
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.testing import FakeToolkit, InMemorySessionRepository, ScriptedModel, tool_call
from serving import invocation, served, settings

SESSIONS = 200
TURNS = 3
_SECRET = re.compile(r"secret-\d+")


async def remember(word: str) -> str:
    """Look something up.

    Args:
        word: what
    """
    await asyncio.sleep(0)
    return f"{word} looked up"


def look(word: str) -> str:
    """Look something up, in a thread.

    Args:
        word: what
    """
    return f"{word} seen"


class Gossip(ChatModelBase):
    """Calls a tool with the last secret it hears, then says every secret that it can see."""

    async def stream(self, messages: Sequence[Msg], **kwargs: Any) -> AsyncIterator[ChatChunk]:
        """See the class."""
        await asyncio.sleep(0)
        text = json.dumps([msg.to_dict() for msg in messages])
        last = messages[-1]
        if last.role == "user":
            secret = _SECRET.findall(str(last.content))[-1]
            calls = [tool_call("remember", word=secret), tool_call("look", word=secret)]
            yield ChatChunk(blocks=[*calls], stop_reason="tool_use")
            return
        for secret in sorted(set(_SECRET.findall(text))):
            yield ChatChunk(f"{secret} ")
            await asyncio.sleep(0)


class SharedAgent(AgentApp):
    """The guide's app: one agent for everyone, its state loaded before and saved after each turn."""

    async def on_startup(self) -> None:
        self.agent = ReActAgent("Friday", "", runtime.models.main, toolkit=runtime.tools, parallel_tool_calls=True)

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        memory, toolkit = self.agent.memory, self.agent.toolkit
        await runtime.session.load_session_state(ctx.session_id, memory=memory, toolkit=toolkit)
        async for chunk in self.agent.stream(msg):
            yield chunk
        await runtime.session.save_session_state(ctx.session_id, memory=memory, toolkit=toolkit)


@pytest.mark.parametrize("resident", [10_000, 20], ids=["all resident", "most evicted"])
async def test_two_hundred_sessions_on_one_agent_never_see_each_other(resident: int) -> None:
    store, tools = InMemorySessionRepository(), FakeToolkit(remember, look)
    rt = Runtime(settings(session={"backend": "memory", "max_resident": resident}), app=SharedAgent)

    async def converse(number: int) -> None:
        secret = f"secret-{number}"
        for _ in range(TURNS):
            answer = [msg async for msg in rt.invoke(f"my word is {secret}", session_id=f"s{number}")]
            said = json.dumps([msg.to_dict() for msg in answer])
            assert set(_SECRET.findall(said)) == {secret}

    with rt.override(models={"main": Gossip()}, tools=tools, session_repository=store):
        async with rt:
            await asyncio.gather(*(converse(number) for number in range(SESSIONS)))
            assert isinstance(rt.app, SharedAgent)
            assert await rt.app.agent.memory.get_memory() == []
            assert len(rt.scopes) <= resident
    for number in range(SESSIONS):
        texts = [text async for page in store.items(f"s{number}", "memory", "/content") for text in page]
        assert set(_SECRET.findall("".join(texts))) == {f"secret-{number}"}
        assert len(texts) == TURNS * 5


class Stuck:
    """A tool that waits until it is let go or cancelled."""

    def __init__(self) -> None:
        self.running, self.cancelled, self.waits = asyncio.Event(), asyncio.Event(), True

    async def work(self) -> str:
        """Work."""
        if not self.waits:
            return "worked"
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return ""


async def test_a_client_that_leaves_in_the_middle_of_a_tool_call_cancels_it_and_the_next_turn_works() -> None:
    stuck = Stuck()
    model = ScriptedModel("Hello", [tool_call("work")], [tool_call("work")], "done")
    async with served(SharedAgent, models={"main": model}) as server:
        with server.runtime.override(tools=FakeToolkit(stuck.work)):
            await server.lines(invocation("hi"))
            async with server.client.post("/invoke", json=invocation("work")) as response:
                await response.content.readline()
                await stuck.running.wait()
                response.close()
            await asyncio.wait_for(stuck.cancelled.wait(), 5)
            stuck.waits = False
            *lines, trailer = await server.lines(invocation("again"))
    assert trailer["metadata"]["done"]
    assert "error" not in trailer
    assert "".join(line["content"] for line in lines if isinstance(line["content"], str)) == "done"
    # The turn that was cut is as if it had never been.
    assert [msg.content for msg in model.calls[2].messages] == ["hi", "Hello", "again"]


class Forgiving(SharedAgent):
    """The guide's error handling: what fails is said, and the turn goes on."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        try:
            async for chunk in self.agent.stream(msg):
                yield chunk
        except Exception as error:
            yield Msg("system", f"Error: {error}", "assistant", metadata={"error": True})


async def test_a_turn_whose_error_the_app_tells_leaves_a_memory_that_a_model_accepts() -> None:
    model = ScriptedModel([tool_call("work")], RuntimeError("no answer"), "back")
    stuck = Stuck()
    stuck.waits = False
    rt = Runtime(settings(), app=Forgiving)
    with rt.override(models={"main": model}, tools=FakeToolkit(stuck.work)):
        async with rt:
            first = [msg async for msg in rt.invoke("one", session_id="s")]
            assert first[-1].content == "Error: no answer"
            second = [msg async for msg in rt.invoke("two", session_id="s")]
    assert "".join(str(msg.content) for msg in second) == "back"
    open_calls: set[str] = set()
    for msg in model.calls[2].messages:
        open_calls -= {block["id"] for block in msg.get_content_blocks("tool_result")}
        open_calls |= {block["id"] for block in msg.get_content_blocks("tool_use")}
    assert open_calls == set()


async def test_agents_made_in_a_session_belong_to_it_alone() -> None:
    class PerSession(AgentApp):
        """The guide's other way: an agent for each session, made when it is first needed."""

        def __init__(self) -> None:
            self._agents: dict[str, ReActAgent] = {}

        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            if ctx.session_id not in self._agents:
                self._agents[ctx.session_id] = ReActAgent("Friday", "", runtime.models.main)
            return await self._agents[ctx.session_id](msg)

    model = ScriptedModel("1", "2", "3")
    rt = Runtime(settings(), app=PerSession)
    with rt.override(models={"main": model}):
        async with rt:
            for text, session in (("a", "x"), ("b", "y"), ("c", "x")):
                assert [msg async for msg in rt.invoke(text, session_id=session)]
    assert [[msg.content for msg in call.messages] for call in model.calls] == [["a"], ["b"], ["a", "1", "c"]]
