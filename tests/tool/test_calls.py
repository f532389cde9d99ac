"""A call never raises because of the model or the tool, and nothing of it is left open."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from agentscope.errors import InvocationClosedError, ToolServerError
from agentscope.message import ToolUseBlock
from agentscope.runtime import SessionContext
from agentscope.tool import Handler, ToolCall, Toolkit, ToolResponse
from tool.workbench import bench, block, inside, refusal, responses, said, text_of, toolkit_of


async def double(x: int) -> int:
    """Twice."""
    return 2 * x


async def fail() -> None:
    raise KeyError("nowhere")


async def fail_later() -> AsyncIterator[str]:
    yield "half"
    yield " done"
    raise ToolServerError("files", "went away")


class UntellableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


async def fail_untellably() -> None:
    raise UntellableError


async def fail_at_length() -> None:
    raise ValueError("x" * 10_000)


async def fail_without_a_word() -> None:
    raise TimeoutError


def test_awaiting_a_call_gives_the_call() -> None:
    async def run() -> None:
        call = toolkit_of(double).call_tool_function(block("double", x=4))
        assert isinstance(call, ToolCall)
        assert await call is call
        assert [text_of(response) async for response in await call] == ["8"]

    asyncio.run(run())


async def test_a_call_runs_when_it_is_read() -> None:
    ran: list[int] = []
    call = toolkit_of(lambda: ran.append(1), func_name="f").call_tool_function(block("f"))
    assert ran == []
    await anext(call)
    assert ran == [1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dubble", "Error: there is no tool named 'dubble'; did you mean 'double'?"),
        ("xyz", "Error: there is no tool named 'xyz'"),
        ("x" * 1000, f"Error: there is no tool named '{'x' * 100}'"),
        ("\ud800", "Error: there is no tool named '\\ud800'"),
    ],
    ids=["close", "far", "long", "unsendable"],
)
async def test_an_unknown_tool_is_told_with_those_that_are_close(name: str, text: str) -> None:
    assert await refusal(toolkit_of(double), name) == text


@pytest.mark.parametrize(
    "call",
    [
        {**block("double"), "raw_input": '{"x": 1'},
        {**block("double"), "raw_input": ""},
        {**block("double"), "input": [1]},
        {**block("double"), "input": "x"},
    ],
    ids=["cut short", "empty", "list", "string"],
)
async def test_arguments_that_are_not_an_object_are_told(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    (response,) = [response async for response in toolkit_of(double).call_tool_function(call)]
    assert text_of(response) == "Error: invalid arguments for double: they are not a JSON object"
    assert caplog.records == []


async def test_a_call_without_any_arguments_is_one_with_none() -> None:
    call: Any = {**block("f"), "input": None}
    (response,) = [response async for response in toolkit_of(lambda: 1, func_name="f").call_tool_function(call)]
    assert text_of(response) == "1"


async def test_wrong_arguments_are_told_under_the_tools_own_name_and_logged_without_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "agentscope.tool")
    toolkit = toolkit_of(double, func_name="twice")
    assert await refusal(toolkit, "twice", x="secret") == (
        "Error: invalid arguments for twice: x: Input should be a valid integer, "
        'unable to parse string as an integer, got "secret"'
    )
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("func", "text"),
    [
        (fail, "Error: KeyError: 'nowhere'"),
        (fail_untellably, "Error: UntellableError"),
        (fail_without_a_word, "Error: TimeoutError"),
        (fail_at_length, "Error: ValueError: " + "x" * 1987 + "…"),
    ],
)
async def test_what_a_tool_raises_is_told_by_type_and_text_and_logged_with_its_traceback(
    func: Callable[..., Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await refusal(toolkit_of(func), func.__name__) == text
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("agentscope.tool", logging.WARNING)
    assert func.__name__ in caplog.text
    assert record.exc_info is not None


async def test_a_failure_in_mid_stream_comes_after_what_there_was() -> None:
    answers = await responses(toolkit_of(fail_later), "fail_later")
    assert [text_of(each) for each in answers] == [
        "half",
        "half done",
        "half done\nError: ToolServerError: MCP server 'files': went away",
    ]
    assert [each.metadata for each in answers] == [None, None, {"is_error": True}]
    assert [each.is_last for each in answers] == [False, False, True]


class OwnExitError(BaseException):
    """What no tool may keep to itself."""


async def test_what_is_no_exception_goes_on_up() -> None:
    async def f() -> None:
        raise OwnExitError

    with pytest.raises(OwnExitError):
        await responses(toolkit_of(f), "f")


@pytest.mark.parametrize("error", [asyncio.CancelledError("its own"), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("in_thread", [False, True], ids=["on the loop", "in a thread"])
async def test_a_tool_that_exits_or_was_cancelled_by_nobody_has_failed(error: BaseException, in_thread: bool) -> None:
    async def on_the_loop() -> None:
        raise error

    def in_a_thread() -> None:
        raise error

    tool = in_a_thread if in_thread else on_the_loop
    (response,) = await responses(toolkit_of(tool), tool.__name__)
    assert response.metadata == {"is_error": True}
    assert type(error).__name__ in str(response.content)


class Crude:
    """A tool that keeps to no rule."""

    name = "crude"
    description = ""
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}}

    def __init__(self, answers: Any) -> None:
        self.answers = answers

    def call(self, arguments: Mapping[str, Any]) -> Any:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


async def yielding(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        (ValueError("x"), "Error: ValueError: x"),
        (7, "Error: TypeError: 'async for' requires an object with __aiter__ method, got int"),
        (yielding("x"), "Error: TypeError: a tool's response must be a ToolResponse, not a str"),
        (yielding(), "(no output)"),
        (yielding(ToolResponse.of_text("a", is_error=True)), "a"),
        (yielding(ToolResponse([{"type": "text", "text": "a"}], is_last=False)), "a"),
    ],
    ids=["raises", "no iterator", "no response", "nothing", "own error", "no last"],
)
async def test_a_tool_of_any_class_answers_with_at_least_one_response_and_a_last(answers: Any, text: str) -> None:
    toolkit = Toolkit()
    toolkit.register_tool_function(Crude(answers))
    assert await said(toolkit, "crude") == text


class Stuck:
    """A tool that waits for ever, and says when it runs and how it ended."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.ended: list[str] = []

    async def wait(self) -> None:
        """Wait."""
        try:
            self.running.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended.append("wait")

    async def stream(self) -> AsyncIterator[str]:
        """Yield, then wait."""
        try:
            yield "a"
            self.running.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended.append("stream")


@pytest.mark.parametrize("name", ["wait", "stream"])
async def test_cancelling_the_reader_cancels_the_tool(name: str) -> None:
    stuck = Stuck()
    reader = asyncio.create_task(responses(toolkit_of(stuck.wait, stuck.stream), name))
    await stuck.running.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert stuck.ended == [name]


@pytest.mark.parametrize("name", ["wait", "stream"])
async def test_closing_a_call_ends_it_for_a_reader_in_another_task(name: str) -> None:
    stuck = Stuck()
    call = toolkit_of(stuck.wait, stuck.stream).call_tool_function(block(name))

    async def read() -> int:
        return len([response async for response in call])

    reader = asyncio.create_task(read())
    await stuck.running.wait()
    await asyncio.wait_for(asyncio.gather(call.aclose(), call.aclose()), 5)
    await call.aclose()
    assert stuck.ended == [name]
    assert await reader == (name == "stream")
    assert reader.cancelling() == 0


async def test_a_tool_that_answers_its_cancellation_is_closed_all_the_same() -> None:
    running = asyncio.Event()

    async def stubborn() -> AsyncIterator[str]:
        while True:
            try:
                running.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield "interrupted"

    call = toolkit_of(stubborn).call_tool_function(block("stubborn"))

    async def read() -> int:
        return len([response async for response in call])

    reader = asyncio.create_task(read())
    await running.wait()
    await asyncio.wait_for(call.aclose(), 5)
    assert await reader == 0


async def test_a_call_that_is_abandoned_is_closed_when_its_invocation_ends() -> None:
    stuck = Stuck()
    toolkit = toolkit_of(stuck.stream, double)
    calls: list[ToolCall] = []

    async def work(_: Toolkit, ctx: SessionContext) -> None:
        for call in (toolkit.call_tool_function(block("stream")), toolkit.call_tool_function(block("double", x=1))):
            calls.append(call)
            if len(calls) == 1:
                await anext(call)

    async with bench() as rt:
        await inside(rt, "a", work)
        assert stuck.ended == ["stream"]
        for call in calls:
            with pytest.raises(StopAsyncIteration):
                await anext(call)


async def test_a_call_can_not_begin_after_its_invocation() -> None:
    toolkit, begun = toolkit_of(double), asyncio.Event()
    tasks: list[asyncio.Task[str]] = []

    async def later() -> str:
        await begun.wait()
        return await said(toolkit, "double", x=1)

    async def work(_: Toolkit, ctx: SessionContext) -> None:
        tasks.append(asyncio.create_task(later()))

    async with bench() as rt:
        await inside(rt, "a", work)
        begun.set()
        with pytest.raises(InvocationClosedError):
            await tasks[0]


async def shout(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that changes the answer."""
    async for response in await next_handler(**kwargs):
        yield ToolResponse.of_text(text_of(response) + "!")


async def ask(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that changes the answer, too."""
    async for response in await next_handler(**kwargs):
        yield ToolResponse.of_text(text_of(response) + "?")


async def increment(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that changes the call."""
    call: ToolUseBlock = kwargs["tool_call"]
    changed = {**call, "input": {"x": call["input"]["x"] + 1}}
    async for response in await next_handler(tool_call=changed):
        yield response


async def deny(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that calls nothing."""
    yield ToolResponse.of_text("denied")


async def twice(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that calls and calls again, and leaves the first call as it is."""
    async for _ in await next_handler(**kwargs):
        break
    async for response in await next_handler(**kwargs):
        yield response


async def breaking(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that fails after it has answered."""
    async for response in await next_handler(**kwargs):
        yield response
    raise ValueError("oh")


async def silent(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that answers nothing."""
    for response in list[ToolResponse]():
        yield response


async def given(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that hands on what is further inside."""
    responses: AsyncIterator[ToolResponse] = await next_handler(**kwargs)
    return responses


@pytest.mark.parametrize(
    ("middlewares", "text"),
    [
        ([shout, ask], "8?!"),
        ([ask, shout], "8!?"),
        ([increment, increment], "12"),
        ([shout, deny, ask], "denied!"),
        ([twice], "8"),
        ([shout, given], "8!"),
        ([breaking], "8\nError: ValueError: oh"),
        ([silent], "(no output)"),
        ([lambda: None], "Error: TypeError: <lambda>() takes 0 positional arguments but 2 were given"),
    ],
    ids=[str(number) for number in range(9)],
)
async def test_middlewares_stand_around_a_call_the_first_outermost(middlewares: list[Any], text: str) -> None:
    toolkit = toolkit_of(double)
    for middleware in middlewares:
        toolkit.register_middleware(middleware)
    assert await said(toolkit, "double", x=4) == text


async def test_a_middleware_sees_failures_as_responses() -> None:
    toolkit = toolkit_of(fail)
    toolkit.register_middleware(shout)
    assert await said(toolkit, "fail") == "Error: KeyError: 'nowhere'!"
    assert await said(toolkit, "fial") == "Error: there is no tool named 'fial'; did you mean 'fail'?!"


async def test_an_abandoned_call_closes_its_middlewares_and_its_tool_from_the_outside_in() -> None:
    stuck = Stuck()

    def closing(name: str) -> Any:
        async def middleware(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
            try:
                async for response in await next_handler(**kwargs):
                    yield response
            finally:
                stuck.ended.append(name)

        return middleware

    toolkit = toolkit_of(stuck.stream)
    toolkit.register_middleware(closing("outer"))
    toolkit.register_middleware(closing("inner"))
    call = toolkit.call_tool_function(block("stream"))
    await anext(call)
    await call.aclose()
    assert stuck.ended == ["outer", "inner", "stream"]


async def test_a_cancellation_during_the_clean_up_leaves_nothing_open() -> None:
    stuck, cleaning = Stuck(), asyncio.Event()

    async def slow(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
        try:
            async for response in await next_handler(**kwargs):
                yield response
        finally:
            cleaning.set()
            await asyncio.Event().wait()

    toolkit = toolkit_of(stuck.stream)
    toolkit.register_middleware(slow)
    call = toolkit.call_tool_function(block("stream"))
    await anext(call)
    closing = asyncio.create_task(call.aclose())
    await cleaning.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert stuck.ended == ["stream"]


async def test_what_a_clean_up_raises_is_logged_and_the_rest_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()

    async def failing(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
        try:
            async for response in await next_handler(**kwargs):
                yield response
        finally:
            raise OSError("not this time")

    toolkit = toolkit_of(stuck.stream)
    toolkit.register_middleware(failing)
    call = toolkit.call_tool_function(block("stream"))
    await anext(call)
    await call.aclose()
    assert stuck.ended == ["stream"]
    assert "not this time" in caplog.text


async def count() -> AsyncIterator[str]:
    """Count."""
    for number in "12":
        yield number


def plain_post(tool_call: ToolUseBlock, response: ToolResponse) -> ToolResponse | None:
    return None if text_of(response) == "1" else ToolResponse.of_text(f"{tool_call['name']}: {text_of(response)}")


async def async_post(tool_call: ToolUseBlock, response: ToolResponse) -> ToolResponse | None:
    return plain_post(tool_call, response)


def plain_at_first(tool_call: ToolUseBlock, response: ToolResponse) -> Any:
    return async_post(tool_call, response)


@pytest.mark.parametrize("postprocess", [plain_post, async_post, plain_at_first])
async def test_each_response_is_postprocessed_and_stays_in_its_place(postprocess: Any) -> None:
    toolkit = toolkit_of(count, postprocess_func=postprocess)
    answers = await responses(toolkit, "count")
    assert [(text_of(each), each.is_last) for each in answers] == [
        ("1", False),
        ("count: 12", False),
        ("count: 12", True),
    ]


async def test_failures_are_postprocessed_too() -> None:
    toolkit = toolkit_of(fail, postprocess_func=plain_post)
    assert await said(toolkit, "fail") == "fail: Error: KeyError: 'nowhere'"


def failing_post(tool_call: ToolUseBlock, response: ToolResponse) -> Any:
    return 1 / 0


def wrong_post(tool_call: ToolUseBlock, response: ToolResponse) -> Any:
    return "text"


@pytest.mark.parametrize(
    ("postprocess", "text"),
    [
        (failing_post, "Error: ZeroDivisionError: division by zero"),
        (wrong_post, "Error: TypeError: a tool's response must be a ToolResponse, not a str"),
    ],
    ids=["fails", "wrong type"],
)
async def test_a_postprocessing_that_goes_wrong_is_a_result(postprocess: Any, text: str) -> None:
    assert text in await said(toolkit_of(double, postprocess_func=postprocess), "double", x=1)
