"""Agents where they were seen to break: late cancellations, readers that write, copies, repeated ids, wrong input."""

import asyncio
import copy
import logging
import pickle
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from agentscope.agent import AgentBase, ReActAgent
from agentscope.errors import InvocationTimeoutError, RuntimeNotReadyError, StateMismatchError
from agentscope.memory import InMemoryMemory, MemoryBase
from agentscope.message import Msg, ToolUseBlock
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.testing import FakeToolkit, ScriptedModel, run_app, tool_call
from agentscope.tool import Toolkit
from serving import settings


def user(text: str, id: str | None = None) -> Msg:
    return Msg("ada", text, "user", id=id)


def open_calls(messages: Sequence[Msg]) -> set[str]:
    """The calls of tools that have no result."""
    calls = {block["id"] for msg in messages for block in msg.get_content_blocks("tool_use")}
    return calls - {block["id"] for msg in messages for block in msg.get_content_blocks("tool_result")}


async def test_what_a_reader_writes_into_a_part_is_nobody_else_s() -> None:
    async for part in ReActAgent("F", "", ScriptedModel("one two")).stream(user("x")):
        part.metadata["user"] = "secret"
    parts = [part.metadata async for part in ReActAgent("G", "", ScriptedModel("a b")).stream(user("y"))]
    assert parts == [{}, {}, {"last": True}]


async def test_what_a_reader_writes_into_a_call_does_not_reach_the_tool() -> None:
    sent: list[str] = []

    def send(to: str) -> str:
        """Send."""
        sent.append(to)
        return "x" * 50

    model = ScriptedModel([tool_call("send", to="a"), tool_call("send", to="b")], "done")
    agent = ReActAgent("F", "", model, toolkit=FakeToolkit(send))
    async for part in agent.stream(user("go")):
        for call in part.get_content_blocks("tool_use"):
            call["input"]["to"] = "***"
        for result in part.get_content_blocks("tool_result"):
            result["output"] = "cut"
    assert sent == ["a", "b"]
    assert "cut" not in str([msg.content for msg in model.calls[1].messages])


class Deaf:
    """A tool that catches its cancellation and goes on."""

    def __init__(self) -> None:
        self.running = asyncio.Event()

    async def work(self) -> str:
        """Work."""
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return "done anyway"


@pytest.mark.parametrize("parallel", [False, True], ids=["one by one", "side by side"])
async def test_a_tool_that_catches_its_cancellation_does_not_keep_the_reply_going(parallel: bool) -> None:
    tool, model = Deaf(), ScriptedModel([tool_call("work")], "word " * 200)
    agent = ReActAgent("F", "", model, toolkit=FakeToolkit(tool.work), parallel_tool_calls=parallel)
    task = asyncio.create_task(agent(user("go")))
    await tool.running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(model.calls) == 1
    assert open_calls(await agent.memory.get_memory()) == set()


async def test_a_time_out_is_not_held_up_by_a_tool_that_catches_its_cancellation() -> None:
    tool, model = Deaf(), ScriptedModel([tool_call("work")], "word " * 200, "next")

    class App(AgentApp):
        async def on_startup(self) -> None:
            self.agent = ReActAgent("F", "", runtime.models.main, toolkit=runtime.tools)

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            async for part in self.agent.stream(msg):
                yield part

    rt = Runtime(settings(server={"request_timeout": 0.2}), app=App)
    with rt.override(models={"main": model}, tools=FakeToolkit(tool.work)):
        async with rt, asyncio.timeout(5):
            with pytest.raises(InvocationTimeoutError):
                [_ async for _ in rt.invoke("go", session_id="s")]
    assert len(model.calls) == 1


async def test_what_is_printed_after_the_stream_is_over_waits_for_nobody() -> None:
    class Lingers(AgentBase):
        async def reply(self) -> Msg:
            async def chatter() -> None:
                for number in range(200):
                    await self.print(Msg("l", str(number), "assistant"))

            await asyncio.sleep(0)
            self.task = asyncio.create_task(chatter())
            return Msg("l", "done", "assistant")

    agent = Lingers()
    assert [msg.content async for msg in agent.stream()][-1] == "done"
    await asyncio.wait_for(agent.task, 5)


async def test_a_message_whose_id_is_repeated_is_heard() -> None:
    model = ScriptedModel("a", "b", "c")
    agent = ReActAgent("F", "", model)
    for text in ("first", "second", "second"):
        await agent(user(text, id="1"))
    assert [msg.content for msg in model.calls[2].messages] == ["first", "a", "second", "b", "second"]


async def test_what_was_observed_last_is_not_heard_twice() -> None:
    model, msg = ScriptedModel("a"), user("hi")
    agent = ReActAgent("F", "", model)
    await agent.observe(msg)
    await agent(msg)
    assert [msg.content for msg in model.calls[0].messages] == ["hi"]


async def test_the_messages_of_a_memory_can_be_yielded_and_copied() -> None:
    class App(AgentApp):
        def __init__(self) -> None:
            self.memory = InMemoryMemory()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            await self.memory.add(msg)
            for kept in await self.memory.get_memory():
                yield kept

    (msg,) = await run_app(App, Msg("ada", [{"type": "text", "text": "hi"}], "user"))
    msg.name = "it is the reader's own"
    memory = InMemoryMemory()
    await memory.add(msg)
    (kept,) = await memory.get_memory()
    for twin in (copy.copy(kept), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert twin.to_dict() == kept.to_dict()
        twin.content = "changed"
        assert kept.content == [{"type": "text", "text": "hi"}]


async def test_a_block_of_a_memory_s_message_can_not_be_changed() -> None:
    memory = InMemoryMemory()
    await memory.add(Msg("ada", [{"type": "text", "text": "hi"}], "user", metadata={"tags": ["a"]}))
    (kept,) = await memory.get_memory()
    with pytest.raises(TypeError, match="can't be changed"):
        kept.get_content_blocks("text")[0]["text"] += " from session 1"
    with pytest.raises(TypeError, match="can't be changed"):
        kept.metadata["tags"].append("b")
    assert copy.deepcopy(kept.metadata) == {"tags": ["a"]}
    copy.deepcopy(kept.metadata)["tags"].append("b")


class V1Style(ReActAgent):
    """Overrides with AgentScope v1's signatures."""

    async def _reasoning(self, tool_choice: Any = None) -> Msg:
        return await super()._reasoning(tool_choice)

    async def _acting(self, tool_call: ToolUseBlock) -> Msg:
        return await super()._acting(tool_call)


class Form(BaseModel):
    """With a name of its own, and strict."""

    model_config = ConfigDict(strict=True)
    given: tuple[int, ...] = Field(alias="numbers")


async def test_overrides_as_v1_has_them_work_with_structured_output() -> None:
    model = ScriptedModel([tool_call("generate_response", numbers=[1, 2])])
    reply = await V1Style("F", "", model)(user("go"), structured_model=Form)
    assert reply.metadata == {"numbers": [1, 2]}
    assert Form.model_validate_json('{"numbers": [1, 2]}') == Form.model_validate(
        {"numbers": tuple(reply.metadata["numbers"])}
    )


async def test_an_agent_can_be_copied() -> None:
    agent = ReActAgent("F", "", ScriptedModel("one", "two"))
    agent.register_instance_hook("post_reply", "note", lambda *_: None)
    twin = copy.deepcopy(agent)
    await agent(user("hi"))
    assert await twin.memory.get_memory() == []
    assert (await twin(user("hello"))).content == "one"


async def test_a_copy_of_a_handle_follows_overrides_as_the_handle_does() -> None:
    async with Runtime(settings(), app=AgentApp) as rt:
        for handle in (rt.models.main, rt.tools):
            assert copy.copy(handle) is handle
            assert copy.deepcopy(handle) is handle


async def test_an_interrupted_stream_ends_every_message_and_answers_every_call() -> None:
    running = asyncio.Event()

    async def count() -> AsyncIterator[str]:
        """Count."""
        yield "one"
        running.set()
        await asyncio.Event().wait()

    agent = ReActAgent("F", "", ScriptedModel([tool_call("count")]), toolkit=FakeToolkit(count))
    shown: list[Msg] = []

    async def read() -> None:
        async for part in agent.stream(user("go")):
            shown.append(part)

    task = asyncio.create_task(read())
    await running.wait()
    await agent.interrupt(user("never mind"))
    await task
    last = {msg.id: msg.metadata.get("last") for msg in shown}
    assert set(last.values()) == {True}
    assert open_calls(shown) == set()
    assert [msg.content for msg in await agent.memory.get_memory()][-2:] == ["never mind", "I was interrupted."]


async def test_a_call_is_closed_also_when_its_tool_made_the_agent_hear_something() -> None:
    running = asyncio.Event()

    async def listen() -> str:
        """Listen."""
        await agent.observe(user("by the way"))
        running.set()
        await asyncio.Event().wait()
        return ""

    agent = ReActAgent("F", "", ScriptedModel([tool_call("listen")]), toolkit=FakeToolkit(listen))
    task = asyncio.create_task(agent(user("go")))
    await running.wait()
    task.cancel()
    await asyncio.wait([task])
    assert open_calls(await agent.memory.get_memory()) == set()


async def test_one_agent_makes_one_reply_at_a_time_in_a_session() -> None:
    tool = Deaf()
    agent = ReActAgent("F", "", ScriptedModel([tool_call("work")], "x"), toolkit=FakeToolkit(tool.work))
    task = asyncio.create_task(agent(user("one")))
    await tool.running.wait()
    assert agent.is_replying
    with pytest.raises(RuntimeError, match="F is making a reply in this session already"):
        await agent(user("two"))
    task.cancel()
    await asyncio.wait([task])
    assert not agent.is_replying


async def test_an_interruption_that_meets_a_failure_is_over_with_it() -> None:
    class Fails(AgentBase):
        async def reply(self, *, late: bool) -> Msg:
            await self.interrupt()
            if late:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    raise ValueError("late") from None
            raise ValueError("at once")

    task = asyncio.current_task()
    assert task is not None
    for late in (False, True):
        with pytest.raises(ValueError, match="late" if late else "at once"):
            await Fails()(late=late)
        await asyncio.sleep(0)
        assert task.cancelling() == 0


async def test_a_memory_that_fails_does_not_hide_why_the_reply_ended(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(InMemoryMemory):
        broken = False

        async def get_memory(self, *args: Any, **kwargs: Any) -> list[Msg]:
            if self.broken:
                raise ConnectionError("the memory is gone")
            return await super().get_memory(*args, **kwargs)

    memory, tool = Broken(), Deaf()
    agent = ReActAgent("F", "", ScriptedModel([tool_call("work")]), toolkit=FakeToolkit(tool.work), memory=memory)
    task = asyncio.create_task(agent(user("go")))
    await tool.running.wait()
    memory.broken = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_text_that_was_streamed_is_remembered_when_its_end_is_cut_off() -> None:
    agent = ReActAgent("F", "", ScriptedModel("once upon"))
    at_end = asyncio.Event()

    async def wait(agent: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["last"]:
            at_end.set()
            await asyncio.Event().wait()

    agent.register_instance_hook("pre_print", "wait", wait)
    task = asyncio.create_task(agent(user("go")))
    await at_end.wait()
    agent.clear_instance_hooks()
    await agent.interrupt()
    await task
    assert [msg.content for msg in await agent.memory.get_memory()] == ["go", "once upon", "I was interrupted."]


async def test_a_hook_that_changes_what_it_is_given_changes_nothing_else() -> None:
    msg, seen = user("hi"), list[Any]()

    def change(agent: Any, kwargs: dict[str, Any], output: Msg | None = None) -> None:
        given: Msg = kwargs["msg"]
        seen.append(given.content)
        given.content = "changed"
        if output is not None:
            output.content = "changed"

    agent = ReActAgent("F", "", ScriptedModel("one two"))
    for kind in ("pre_reply", "post_reply", "pre_print"):
        agent.register_instance_hook(kind, "change", change)
    assert (await agent(msg)).content == "one two"
    assert (msg.content, seen) == ("hi", ["hi", "one", " two", "", "hi"])


async def test_its_own_last_words_that_it_observes_stay_its_own() -> None:
    model = ScriptedModel("x")
    agent = ReActAgent("F", "", model)
    await agent.observe([user("hi"), Msg("F", "hello", "assistant")])
    await agent(user("go on"))
    assert [msg.role for msg in model.calls[0].messages] == ["user", "assistant", "user"]


async def test_wrong_input_is_named() -> None:
    agent: Any = ReActAgent("F", "", ScriptedModel())
    with pytest.raises(TypeError, match="an agent takes a Msg or a list of them, not a str"):
        await agent("hello")

    class Forgets(AgentBase):
        async def reply(self) -> Any:
            return None

    with pytest.raises(TypeError, match=r"Forgets\.reply gave a NoneType, not a Msg"):
        [_ async for _ in Forgets().stream()]

    class V1Model:
        stream = True

    model: Any = V1Model()
    with pytest.raises(TypeError, match="it must be a chat model"):
        ReActAgent("F", "", model)
    memory: Any = InMemoryMemory()
    states: list[Any] = [{"content": None}, {"content": [], "_compressed_summary": 7}]
    for state in states:
        with pytest.raises(StateMismatchError):
            memory.load_state_dict(state)
    memory.load_state_dict({"content": [], "_compressed_summary": None})
    assert memory.compressed_summary == ""


async def test_a_memory_that_lacks_a_method_says_which() -> None:
    unfinished: Any = MemoryBase
    with pytest.raises(NotImplementedError, match="MemoryBase has no `async def size"):
        await unfinished().size()


async def test_a_stream_has_one_reader() -> None:
    tool = Deaf()
    agent = ReActAgent("F", "", ScriptedModel([tool_call("work")], "x"), toolkit=FakeToolkit(tool.work))
    async with agent.stream(user("go")) as stream:
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await tool.running.wait()
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="has a reader already"):
            await anext(stream)
        reading.cancel()
        await asyncio.wait([reading])


async def test_the_toolkit_of_the_runtime_before_the_start_says_what_to_do() -> None:
    rt = Runtime(settings(), app=AgentApp)
    with pytest.raises(RuntimeNotReadyError, match="register tools and make agents in on_startup"):
        rt.tools.get_json_schemas()
    async with rt:
        assert isinstance(rt.tools, Toolkit)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"toolkit": Toolkit}, "toolkit is the class Toolkit: it must be a Toolkit, such as runtime.tools"),
        ({"toolkit": ["f"]}, "toolkit is a list"),
        ({"memory": "x"}, "memory is a str: it must be a memory, such as InMemoryMemory"),
        ({"memory": InMemoryMemory}, "memory is the class InMemoryMemory"),
    ],
    ids=["class of toolkits", "list of tools", "text", "class of memories"],
)
def test_a_wrong_part_of_an_agent_is_named(options: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"name": "F", "sys_prompt": "", "model": ScriptedModel(), **options}
    with pytest.raises(TypeError, match=says):
        ReActAgent(**arguments)


async def test_an_agent_that_forgets_its_base_is_told() -> None:
    class Forgets(AgentBase):
        def __init__(self) -> None:
            self.name = "forgets"

    with pytest.raises(TypeError, match=r"Forgets.__init__ must call super\(\).__init__\(\)"):
        await Forgets()()


async def test_wrong_fakes_are_named() -> None:
    tools: Any = [print]
    with pytest.raises(TypeError, match="tools is a list: give a Toolkit, or FakeToolkit"):
        await run_app(AgentApp, "hi", tools=tools)
    reply: Any = ["a", "b"]
    with pytest.raises(TypeError, match=r"\['a', 'b'\] is no reply"):
        ScriptedModel(reply)
    hook: Any = "y"
    with pytest.raises(TypeError, match="a hook is a function, not a str"):
        ReActAgent("F", "", ScriptedModel()).register_instance_hook("pre_reply", "x", hook)


async def test_an_agent_that_exits_fails_its_turn_and_not_the_server() -> None:
    class Exits(AgentBase):
        async def reply(self) -> Msg:
            raise SystemExit(3)

    class App(AgentApp):
        def __init__(self) -> None:
            self.agent = Exits()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            if msg.content == "exit":
                async for part in self.agent.stream():
                    yield part
            yield Msg("a", "still here", "assistant")

    async with Runtime(settings(), app=App) as rt:
        with pytest.raises(SystemExit):
            [_ async for _ in rt.invoke("exit")]
        assert [msg.content async for msg in rt.invoke("hi")] == ["still here"]
