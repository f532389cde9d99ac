"""``ReActAgent``: what it says to its model, what it does with the tools, and what it remembers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic import BaseModel, Field

from agentscope.agent import ReActAgent
from agentscope.errors import StructuredOutputError
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg, ToolResultBlock, ToolUseBlock
from agentscope.model import ChatChunk, ChatResponse, ModelTimeoutError
from agentscope.testing import ScriptedModel, tool_call
from agentscope.tool import Toolkit, ToolResponse


def user(text: str) -> Msg:
    return Msg("ada", text, "user")


async def double(number: int) -> str:
    """Twice a number.

    Args:
        number: the number
    """
    return str(2 * number)


def toolkit(*functions: Any) -> Toolkit:
    kit = Toolkit()
    for function in functions or (double,):
        kit.register_tool_function(function)
    return kit


def agent_of(*replies: Any, **options: Any) -> tuple[ReActAgent, ScriptedModel]:
    model = ScriptedModel(*replies)
    return ReActAgent(name="Friday", sys_prompt="Be kind.", model=model, **options), model


def seen(model: ScriptedModel, call: int) -> list[tuple[str, Any]]:
    return [(msg.role, msg.content) for msg in model.calls[call].messages]


def results(messages: Sequence[Msg]) -> list[tuple[str, str]]:
    """The results of tools by the id of the call, their text joined."""
    found: list[ToolResultBlock] = [block for msg in messages for block in msg.get_content_blocks("tool_result")]
    return [(block["id"], text_of(block)) for block in found]


def text_of(block: ToolResultBlock) -> str:
    output = block["output"]
    return output if isinstance(output, str) else "".join(part["text"] for part in output if part["type"] == "text")


async def assert_consistent(memory: Any) -> None:
    """Every call of a tool has its one result, after it."""
    open_calls: set[str] = set()
    for msg in await memory.get_memory():
        for block in msg.get_content_blocks("tool_result"):
            open_calls.remove(block["id"])
        open_calls |= {block["id"] for block in msg.get_content_blocks("tool_use")}
    assert open_calls == set()


async def test_an_agent_answers_and_remembers() -> None:
    agent, model = agent_of("Hello there", "Ada, I think")
    reply = await agent(user("Hi, I am Ada"))
    assert (reply.name, reply.role, reply.content) == ("Friday", "assistant", "Hello there")
    await agent(user("Who am I?"))
    assert seen(model, 0) == [("system", "Be kind."), ("user", "Hi, I am Ada")]
    assert seen(model, 1)[1:] == [("user", "Hi, I am Ada"), ("assistant", "Hello there"), ("user", "Who am I?")]
    assert (model.calls[0].tools, model.calls[0].tool_choice) == (None, None)


async def test_it_calls_tools_and_reads_their_results_until_it_has_an_answer() -> None:
    one, two = tool_call("double", number=4), tool_call("double", number=8)
    agent, model = agent_of([one], [{"type": "text", "text": "Again."}, two], "16", toolkit=toolkit())
    reply = await agent(user("four times four"))
    assert reply.content == "16"
    assert results(model.calls[2].messages) == [(one["id"], "8"), (two["id"], "16")]
    assert model.calls[0].tools is not None
    assert [schema["function"]["name"] for schema in model.calls[0].tools] == ["double"]
    assert await agent.memory.size() == 6


async def test_the_stream_is_what_it_says_and_does_in_order() -> None:
    call = tool_call("double", number=4)
    thinking = ChatChunk(blocks=[{"type": "thinking", "thinking": "Hm"}])
    more = ChatChunk(blocks=[{"type": "thinking", "thinking": "m."}])
    first = [thinking, more, ChatChunk("Let me"), ChatChunk(" see."), ChatChunk(blocks=[call], stop_reason="tool_use")]
    agent, _ = agent_of(first, "It is 8", toolkit=toolkit())
    shown = [msg async for msg in agent.stream(user("twice four"))]
    assert [(msg.role, msg.content, msg.metadata) for msg in shown] == [
        ("assistant", "Hm", {"thinking": True}),
        ("assistant", "m.", {"thinking": True}),
        ("assistant", "", {"thinking": True, "last": True}),
        ("assistant", "Let me", {}),
        ("assistant", " see.", {}),
        ("assistant", "", {"last": True}),
        ("assistant", [call], {"last": True}),
        ("system", [{**_result(call), "output": [{"type": "text", "text": "8"}]}], {"last": True}),
        ("assistant", "It", {}),
        ("assistant", " is", {}),
        ("assistant", " 8", {}),
        ("assistant", "", {"last": True}),
    ]
    ids = [msg.id for msg in shown]
    assert len({*ids[0:3]}) == len({*ids[3:6]}) == len({*ids[8:12]}) == 1
    assert len(set(ids)) == 5


def _result(call: ToolUseBlock) -> ToolResultBlock:
    return {"type": "tool_result", "id": call["id"], "name": call["name"], "output": ""}


async def test_the_reply_has_the_id_of_the_text_that_was_streamed() -> None:
    agent, _ = agent_of("Hello there")
    stream = agent.stream(user("Hi"))
    shown = [msg async for msg in stream]
    assert stream.reply is not None
    assert {msg.id for msg in shown} == {stream.reply.id}
    assert stream.reply.content == "Hello there"


async def test_a_chunk_that_ends_the_answer_is_the_last() -> None:
    agent, _ = agent_of([ChatChunk("Hel"), ChatChunk("lo", stop_reason="stop")])
    assert [(msg.content, msg.metadata) async for msg in agent.stream(user("Hi"))] == [
        ("Hel", {}),
        ("lo", {"last": True}),
    ]


async def test_a_tool_that_streams_is_shown_as_it_goes() -> None:
    async def count() -> AsyncIterator[str]:
        """Count."""
        yield "one"
        yield " two"

    agent, model = agent_of([tool_call("count")], "done", toolkit=toolkit(count))
    shown = [msg async for msg in agent.stream(user("count"))]
    steps = [msg for msg in shown if msg.has_content_blocks("tool_result")]
    assert [text_of(msg.get_content_blocks("tool_result")[0]) for msg in steps][:2] == ["one", "one two"]
    assert [msg.metadata.get("last") for msg in steps[:-1]] == [None] * (len(steps) - 1)
    assert steps[-1].metadata == {"last": True}
    assert len({msg.id for msg in steps}) == 1
    assert [text for _, text in results(model.calls[1].messages)] == ["one two"]


async def test_wrong_arguments_and_failures_go_back_to_the_model() -> None:
    async def fail() -> str:
        """Fail."""
        raise RuntimeError("no disk")

    wrong, failing, unknown = tool_call("double", number="x"), tool_call("fail"), tool_call("triple")
    agent, model = agent_of([wrong, failing, unknown], "sorry", toolkit=toolkit(double, fail))
    assert (await agent(user("go"))).content == "sorry"
    texts = dict(results(model.calls[1].messages))
    assert "number" in texts[wrong["id"]]
    assert "no disk" in texts[failing["id"]]
    assert "triple" in texts[unknown["id"]]


async def test_parallel_calls_run_side_by_side_and_are_remembered_in_order() -> None:
    together = asyncio.Barrier(3)

    async def meet(name: str) -> str:
        """Wait for the others."""
        await asyncio.wait_for(together.wait(), 5)
        return name

    calls = [tool_call("meet", name=name) for name in "abc"]
    agent, model = agent_of(calls, "met", toolkit=toolkit(meet), parallel_tool_calls=True)
    await agent(user("go"))
    assert results(model.calls[1].messages) == [(call["id"], name) for call, name in zip(calls, "abc", strict=True)]


async def test_after_its_last_step_it_answers_without_tools() -> None:
    replies = [[tool_call("double", number=n)] for n in (1, 2)]
    agent, model = agent_of(*replies, "I give up", toolkit=toolkit(), max_iters=2)
    reply = await agent(user("go"))
    assert reply.content == "I give up"
    assert model.calls[2].tool_choice == "none"
    assert model.calls[2].tools is not None
    assert "without tools" in str(model.calls[2].messages[-1].content)
    assert (await agent.memory.get_memory())[-1].content == "I give up"
    await assert_consistent(agent.memory)


async def test_a_model_that_calls_tools_to_the_very_end_leaves_no_open_call() -> None:
    agent, _ = agent_of(
        [tool_call("double", number=1)],
        [{"type": "text", "text": "so"}, tool_call("double", number=2)],
        toolkit=toolkit(),
        max_iters=1,
    )
    reply = await agent(user("go"))
    assert reply.get_text_content() == "so"
    await assert_consistent(agent.memory)


class Place(BaseModel):
    """Where someone is."""

    city: str
    people: int = Field(ge=0)


async def test_structured_output_is_validated_and_lands_in_the_metadata() -> None:
    good = tool_call("generate_response", city="Berlin", people=3)
    agent, model = agent_of([tool_call("generate_response", city="Berlin", people=-1)], [good], toolkit=toolkit())
    reply = await agent(user("where?"), structured_model=Place)
    assert reply.metadata == {"city": "Berlin", "people": 3}
    assert reply.content == '{"city": "Berlin", "people": 3}'
    assert model.calls[0].tool_choice == "required"
    (_, problem), *_ = results(model.calls[1].messages)
    assert "people" in problem
    await assert_consistent(agent.memory)
    assert agent.toolkit.get_json_schemas() == toolkit().get_json_schemas()


async def test_text_beside_the_output_is_the_text_of_the_reply() -> None:
    agent, _ = agent_of([{"type": "text", "text": "There."}, tool_call("generate_response", city="Rome", people=1)])
    stream = agent.stream(user("where?"), structured_model=Place)
    shown = [msg async for msg in stream]
    assert stream.reply is not None
    assert (stream.reply.content, stream.reply.metadata) == ("There.", {"city": "Rome", "people": 1})
    assert shown[-1].metadata == {"city": "Rome", "people": 1, "last": True}
    assert "".join(msg.content for msg in shown if isinstance(msg.content, str)) == "There."


async def test_a_model_that_never_gives_the_output_is_an_error() -> None:
    agent, model = agent_of("I would rather not", "Really not", max_iters=2)
    with pytest.raises(StructuredOutputError, match="Friday gave no valid structured output"):
        await agent(user("where?"), structured_model=Place)
    assert "generate_response" in str(model.calls[1].messages[-1].content)


async def test_a_failing_model_fails_the_reply_and_leaves_no_open_call() -> None:
    agent, _ = agent_of([tool_call("double", number=1)], ModelTimeoutError("main"), "back", toolkit=toolkit())
    with pytest.raises(ModelTimeoutError):
        await agent(user("go"))
    await assert_consistent(agent.memory)
    assert (await agent(user("again"))).content == "back"


class Hangs(ScriptedModel):
    """A model whose stream stops after its script's chunks, until it is closed."""

    def __init__(self, *chunks: ChatChunk) -> None:
        super().__init__(list(chunks))
        self.hangs, self.closed = asyncio.Event(), False

    async def stream(self, messages: Sequence[Msg], **kwargs: Any) -> AsyncIterator[ChatChunk]:
        """The chunks, then nothing."""
        try:
            async for chunk in super().stream(messages, **kwargs):
                yield chunk
            self.hangs.set()
            await asyncio.Event().wait()
        finally:
            self.closed = True


async def test_a_cancellation_reaches_the_stream_of_the_model() -> None:
    model = Hangs(ChatChunk("Once upon"))
    agent = ReActAgent("Friday", "", model)
    task = asyncio.create_task(agent(user("a story")))
    await model.hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.closed
    assert [msg.content for msg in await agent.memory.get_memory()] == ["a story", "Once upon"]


class Stuck:
    """A tool that never comes back by itself."""

    def __init__(self) -> None:
        self.running, self.cancelled = asyncio.Event(), 0

    async def wait(self) -> ToolResponse:
        """Wait for ever."""
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError


@pytest.mark.parametrize("parallel", [False, True], ids=["one by one", "side by side"])
async def test_a_cancellation_reaches_the_tools_and_leaves_every_call_with_a_result(parallel: bool) -> None:
    stuck = Stuck()
    calls = [tool_call("double", number=2), tool_call("wait"), tool_call("double", number=3)]
    agent, _ = agent_of(calls, toolkit=toolkit(double, stuck.wait), parallel_tool_calls=parallel)
    task = asyncio.create_task(agent(user("go")))
    await stuck.running.wait()
    if parallel:
        while len(asyncio.all_tasks()) > 3:  # noqa: ASYNC110 - until only the stuck call is left
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stuck.cancelled == 1
    await assert_consistent(agent.memory)
    kept = dict(results(await agent.memory.get_memory()))
    assert kept[calls[0]["id"]] == "4"
    assert "interrupted" in kept[calls[1]["id"]]


@pytest.mark.parametrize("stage", ["model", "tool"])
async def test_an_interruption_gives_a_reply(stage: str) -> None:
    stuck, hanging = Stuck(), Hangs(ChatChunk("Once"))
    if stage == "model":
        agent, waits = ReActAgent("Friday", "", hanging), hanging.hangs
    else:
        agent, waits = agent_of([tool_call("wait")], toolkit=toolkit(stuck.wait))[0], stuck.running
    task = asyncio.create_task(agent(user("go")))
    await waits.wait()
    await agent.interrupt()
    reply = await task
    assert reply.metadata == {"interrupted": True}
    assert not task.cancelling()
    await assert_consistent(agent.memory)
    assert (await agent.memory.get_memory())[-1].id == reply.id


async def test_an_interruption_ends_the_stream_with_its_reply() -> None:
    stuck = Stuck()
    agent, _ = agent_of([tool_call("wait")], toolkit=toolkit(stuck.wait))
    stream = agent.stream(user("go"))
    assert (await anext(stream)).has_content_blocks("tool_use")
    await stuck.running.wait()
    await agent.interrupt()
    shown = [msg async for msg in stream]
    assert shown[-1].metadata == {"interrupted": True, "last": True}
    assert stream.reply is not None
    assert stream.reply.id == shown[-1].id


async def test_an_interruption_and_a_cancellation_together_are_a_cancellation() -> None:
    stuck = Stuck()
    agent, _ = agent_of([tool_call("wait")], toolkit=toolkit(stuck.wait))
    task = asyncio.create_task(agent(user("go")))
    await stuck.running.wait()
    await agent.interrupt()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_tool_may_interrupt_its_own_agent() -> None:
    agent, _ = agent_of([tool_call("stop")], "never said", toolkit=Toolkit())

    async def stop() -> str:
        """Stop."""
        await agent.interrupt()
        return "stopped"

    agent.toolkit.register_tool_function(stop)
    reply = await agent(user("go"))
    assert reply.metadata == {"interrupted": True}
    await assert_consistent(agent.memory)


async def test_closing_the_stream_cancels_the_tool() -> None:
    stuck = Stuck()
    agent, _ = agent_of([tool_call("wait")], toolkit=toolkit(stuck.wait))
    async with agent.stream(user("go")) as stream:
        await anext(stream)
        await stuck.running.wait()
    assert stuck.cancelled == 1
    await assert_consistent(agent.memory)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_what_it_hears_from_others_is_input_and_what_it_said_is_its_own() -> None:
    agent, model = agent_of("mine", "yes")
    await agent(user("hi"))
    thought: Any = [{"type": "thinking", "thinking": "secret", "signature": "s"}, {"type": "text", "text": "theirs"}]
    await agent.observe([Msg("Planner", thought, "assistant"), Msg("boss", "orders", "system")])
    await agent(Msg("Friday", "from a namesake", "assistant"))
    assert seen(model, 1)[1:] == [
        ("user", "hi"),
        ("assistant", "mine"),
        ("user", [{"type": "text", "text": "theirs"}]),
        ("user", "orders"),
        ("user", "from a namesake"),
    ]


async def test_a_history_that_is_handed_over_keeps_its_roles() -> None:
    agent, model = agent_of("yes")
    await agent([user("hi"), Msg("Friday", "hello", "assistant"), user("still there?")])
    assert [role for role, _ in seen(model, 0)] == ["system", "user", "assistant", "user"]


async def test_without_a_message_it_goes_on() -> None:
    agent, model = agent_of("more")
    await agent.observe(user("go on"))
    await agent()
    assert seen(model, 0)[1:] == [("user", "go on")]


async def test_its_state_is_that_of_its_memory_and_toolkit_and_its_names() -> None:
    agent, _ = agent_of("Hello")
    await agent(user("Hi"))
    state = agent.state_dict()
    assert state.keys() == {"memory", "toolkit", "name", "_sys_prompt"}
    other, _ = agent_of()
    other.load_state_dict(state)
    assert [msg.content for msg in await other.memory.get_memory()] == ["Hi", "Hello"]


async def test_an_empty_memory_that_is_given_is_used() -> None:
    memory = InMemoryMemory()
    agent, _ = agent_of("Hello", memory=memory, formatter=object())
    await agent(user("Hi"))
    assert await memory.size() == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [({"model": "gpt-4"}, "it must be a chat model"), ({"max_iters": 0}, "at least one step")],
    ids=["no model", "no step"],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"name": "Friday", "sys_prompt": "", "model": ScriptedModel(), **options}
    with pytest.raises((TypeError, ValueError), match=says):
        ReActAgent(**arguments)


async def test_a_response_that_is_empty_is_an_empty_reply() -> None:
    agent, _ = agent_of(ChatResponse([]))
    assert [msg.content async for msg in agent.stream(user("Hi"))] == [""]
