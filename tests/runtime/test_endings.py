"""How invocations end when something is wrong: with the app, with its clean-up, or with who reads it."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from agentscope.errors import (
    InvocationCancelledError,
    InvocationClosedError,
    InvocationTimeoutError,
    OverloadedError,
    RuntimeNotReadyError,
)
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModelBase
from agentscope.runtime import AgentApp, Runtime, SessionContext, _belongings, _invocation, _running, runtime
from serving import Echo, settings


def say(text: str) -> Msg:
    """One line of an answer."""
    return Msg("assistant", text, "assistant")


async def collect(rt: Runtime, session_id: str = "s") -> list[Any]:
    return [msg.content async for msg in rt.invoke("hi", session_id=session_id)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits that a test can wait for."""
    monkeypatch.setattr(_invocation, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(_belongings, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(_running, "_CANCELLED_SECONDS", 0.05)


async def test_a_clean_up_is_not_cut_short_by_further_cancellations() -> None:
    done = asyncio.Event()
    cleaning, proceed = asyncio.Event(), asyncio.Event()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                yield say("x")
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                await proceed.wait()
                done.set()

    rt = Runtime(settings(), app=App)
    await rt.initialize()
    stream = rt.invoke("hi", session_id="s")
    await anext(stream)
    closing = [asyncio.create_task(stream.aclose()) for _ in range(2)]
    await cleaning.wait()
    stopping = asyncio.create_task(rt.shutdown())
    await asyncio.sleep(0)
    proceed.set()
    await asyncio.gather(*closing, stopping)
    assert done.is_set()


@pytest.mark.usefixtures("impatient")
async def test_a_clean_up_that_hangs_is_cancelled_in_the_end_and_the_session_is_freed() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                yield say("x")
                await asyncio.Event().wait()
            finally:
                await asyncio.Event().wait()

    async with Runtime(settings(), app=App) as rt:
        stream = rt.invoke("hi", session_id="s")
        await anext(stream)
        await asyncio.wait_for(stream.aclose(), 2)
        async with rt.invoke("hi", session_id="s") as again:
            assert (await anext(again)).content == "x"


@pytest.mark.usefixtures("impatient")
async def test_a_clean_up_that_hangs_again_and_again_is_cancelled_each_time() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            yield say("x")
            for _ in range(4):
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async with Runtime(settings(), app=App) as rt:
        stream = rt.invoke("hi", session_id="s")
        await anext(stream)
        await asyncio.wait_for(stream.aclose(), 2)


async def test_what_closes_after_the_answer_is_not_cut_short_by_a_client_that_leaves() -> None:
    closing, proceed, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Closes(ChatModelBase):
        async def stream(self, messages: object, **kwargs: object) -> AsyncIterator[ChatChunk]:
            try:
                yield ChatChunk("one")
            finally:
                closing.set()
                await proceed.wait()
                closed.set()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            self.chunks = runtime.models.main.stream([msg])
            await anext(self.chunks)
            yield say("done")

    async with Runtime(settings(), app=App) as rt:
        with rt.override(models={"main": Closes()}):
            stream = rt.invoke("hi", session_id="s")
            assert (await anext(stream)).content == "done"
            await closing.wait()
            leaving = asyncio.create_task(stream.aclose())
            for _ in range(5):
                await asyncio.sleep(0)
            proceed.set()
            await leaving
    assert closed.is_set()


@pytest.mark.usefixtures("impatient")
async def test_an_app_that_can_not_be_cancelled_is_left_behind_by_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            yield say("x")
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    rt = Runtime(settings(), app=App)
    await rt.initialize()
    stream = rt.invoke("hi")
    await anext(stream)
    await asyncio.wait_for(rt.shutdown(), 2)
    assert "is left behind" in caplog.text
    release.set()
    await stream.aclose()


async def test_an_app_that_returns_on_its_cancellation_does_not_wait_for_what_it_spawned() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            ctx.spawn(asyncio.Event().wait())
            try:
                yield say("x")
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return

    async with Runtime(settings(), app=App) as rt:
        stream = rt.invoke("hi")
        await anext(stream)
        await asyncio.wait_for(stream.aclose(), 1)


class OwnExitError(BaseException):
    """What a test tool raises to end a test."""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OwnExitError("x"), OwnExitError),
        (BaseExceptionGroup("x", [asyncio.CancelledError(), ValueError()]), BaseExceptionGroup),
        (SystemExit(3), SystemExit),
        (asyncio.CancelledError(), RuntimeError),
        (GeneratorExit(), RuntimeError),
    ],
    ids=["of its own", "group", "exit", "a cancellation of its own", "generator exit"],
)
async def test_whatever_an_app_raises_is_a_failure(raised: BaseException, expected: type[BaseException]) -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            if msg.content == "fail":
                raise raised
            yield say("fine")

    async with Runtime(settings(), app=App) as rt:
        with pytest.raises(expected):
            await anext(rt.invoke("fail", session_id="s"))
        assert await collect(rt) == ["fine"]


@pytest.mark.parametrize("raised", [ValueError("in the clean-up"), SystemExit(3)], ids=["error", "exit"])
async def test_what_an_app_raises_while_it_is_cancelled_is_logged_and_goes_no_further(
    raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                yield say("x")
                await asyncio.Event().wait()
            finally:
                if ctx.session_id == "s":
                    raise raised

    async with Runtime(settings(), app=App) as rt:
        stream = rt.invoke("hi", session_id="s")
        await anext(stream)
        await stream.aclose()
        async with rt.invoke("hi", session_id="other") as other:
            assert (await anext(other)).content == "x"
    assert "the app failed while it was cancelled" in caplog.text


async def test_a_deadline_that_the_app_swallows_is_a_deadline_all_the_same() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield say("I go on")

    async with Runtime(settings(server={"request_timeout": 0.02}), app=App) as rt:
        with pytest.raises(InvocationTimeoutError):
            await collect(rt)


async def test_the_turns_of_a_session_follow_each_other_without_waiting() -> None:
    strict = {"session": {"backend": "memory", "on_conflict": "reject"}, "server": {"max_queued": 0}}
    async with Runtime(settings(**strict), app=Echo) as rt:
        for _ in range(20):
            assert await collect(rt) == ["hi"]
        for _ in range(20):
            async with rt.invoke("hi", session_id="s") as stream:
                await anext(stream)


@pytest.mark.parametrize("size", [1, 40_000], ids=["while others have their turn", "while the reader is slow"])
async def test_a_timeout_around_the_apps_yields_is_the_apps(size: int) -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                async with asyncio.timeout(0.05):
                    while True:
                        yield say("x" * size)
            except TimeoutError:
                yield say("the app's own word")

    async with Runtime(settings(), app=App) as rt:
        stream = rt.invoke("hi")
        seen = [(await anext(stream)).content]
        await asyncio.sleep(0.1)
        async for msg in stream:
            seen.append(msg.content)
    assert seen[-1] == "the app's own word"


async def test_an_app_may_end_when_its_own_timeout_around_its_yields_is_over() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    while True:
                        yield say("x")

    async with Runtime(settings(), app=App) as rt:
        invocation = await rt.begin(Msg("u", "hi", "user"), lambda msg: (msg, 1), session_id="s", request_id="r")
        while not invocation.pump.closed:
            await invocation.pump.take()
    assert invocation.error is None


async def test_an_answer_that_is_no_generator_is_closed() -> None:
    class Answer(AsyncIterator[Msg]):
        closed = said = False

        async def __anext__(self) -> Msg:
            if self.said:
                raise StopAsyncIteration
            self.said = True
            return say("x")

        async def aclose(self) -> None:
            self.closed = True

    answer = Answer()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            return answer

    async with Runtime(settings(), app=App) as rt:
        assert await collect(rt) == ["x"]
    assert answer.closed


async def test_an_invocation_that_has_ended_is_not_kept_until_its_deadline() -> None:
    async with Runtime(settings(server={"request_timeout": 600}), app=Echo) as rt:
        invocation = await rt.begin(Msg("u", "hi", "user"), lambda msg: (msg, 1), session_id="s", request_id="r")
        while not invocation.pump.closed:
            await invocation.pump.take()
        await invocation.aclose()
        kept = weakref.ref(invocation)
        del invocation
        gc.collect()
        assert kept() is None


async def test_a_stream_that_is_dropped_in_a_thread_cancels_the_app() -> None:
    cleaned = asyncio.Event()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                yield say("x")
                await asyncio.Event().wait()
            finally:
                cleaned.set()

    # It tells what is no business of another thread.
    asyncio.get_running_loop().set_debug(True)
    async with Runtime(settings(), app=App) as rt:
        streams = [rt.invoke("hi", session_id="s")]
        await anext(streams[0])
        await asyncio.to_thread(streams.clear)
        await asyncio.wait_for(cleaned.wait(), 1)


class Ticking(ChatModelBase):
    """Speaks and waits, and notes its end."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def stream(self, messages: object, **kwargs: object) -> AsyncGenerator[ChatChunk, None]:
        """Yield twice, then wait for ever."""
        try:
            yield ChatChunk("one")
            yield ChatChunk("two")
            await asyncio.Event().wait()
        finally:
            self.closed.set()


async def test_a_stream_that_changes_its_reader_is_closed_with_the_invocation() -> None:
    model = Ticking()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            stream = runtime.models.main.stream([msg])
            await anext(stream)
            started = asyncio.Event()

            async def read_on() -> None:
                async for _ in stream:
                    started.set()

            self.reader = asyncio.create_task(read_on())
            await started.wait()
            yield say("done")

    async with Runtime(settings(), app=App) as rt:
        with rt.override(models={"main": model}):
            assert await asyncio.wait_for(collect(rt), 1) == ["done"]
            assert model.closed.is_set()


async def test_closing_a_stream_from_beside_ends_its_reader_and_no_more() -> None:
    model = Ticking()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            stream = runtime.models.main.stream([msg])

            async def watch() -> None:
                await asyncio.sleep(0.01)
                await stream.aclose()

            ctx.spawn(watch())
            async for chunk in stream:
                yield say(chunk.text)
            yield say("and on")

    async with Runtime(settings(), app=App) as rt:
        with rt.override(models={"main": model}):
            assert await collect(rt) == ["one", "two", "and on"]
    assert model.closed.is_set()


async def test_a_stream_whose_vendor_fails_to_close_does_not_keep_who_closes_it() -> None:
    class Chunks(AsyncIterator[ChatChunk]):
        spoken = False

        async def __anext__(self) -> ChatChunk:
            if self.spoken:
                await asyncio.Event().wait()
            self.spoken = True
            return ChatChunk("one")

        async def aclose(self) -> None:
            raise OSError("while closing")

    class Failing(ChatModelBase):
        def stream(self, messages: object, **kwargs: object) -> AsyncIterator[ChatChunk]:
            return Chunks()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            stream = runtime.models.main.stream([msg])
            started = asyncio.Event()

            async def read() -> None:
                with suppress(OSError):
                    async for _ in stream:
                        started.set()

            self.reader = asyncio.create_task(read())
            await started.wait()
            yield say("done")

    async with Runtime(settings(), app=App) as rt:
        with rt.override(models={"main": Failing()}):
            assert await asyncio.wait_for(collect(rt), 1) == ["done"]


async def test_a_vendors_iterator_that_is_no_generator_is_closed() -> None:
    class Chunks(AsyncIterator[ChatChunk]):
        closed = False

        async def __anext__(self) -> ChatChunk:
            return ChatChunk("x")

        async def aclose(self) -> None:
            self.closed = True

    chunks = Chunks()

    class Model(ChatModelBase):
        def stream(self, messages: object, **kwargs: object) -> AsyncIterator[ChatChunk]:
            return chunks

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            async for _ in runtime.models.main.stream([msg]):
                break
            yield say("done")

    async with Runtime(settings(), app=App) as rt:
        with rt.override(models={"main": Model()}):
            await collect(rt)
    assert chunks.closed


async def test_an_invocation_inside_another_uses_its_slot() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            if msg.content == "inner":
                yield say("from inside")
                return
            async for inner in runtime.invoke("inner"):
                yield inner

    async with Runtime(settings(server={"max_concurrent_invocations": 1}), app=App) as rt:
        for _ in range(3):
            assert await asyncio.wait_for(collect(rt), 1) == ["from inside"]


async def test_waiting_for_a_slot_has_an_end() -> None:
    started = asyncio.Event()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            started.set()
            await asyncio.Event().wait()
            yield msg

    tight = {"server": {"max_concurrent_invocations": 1}, "session": {"backend": "memory", "queue_timeout": 0.02}}
    async with Runtime(settings(**tight), app=App) as rt:
        first = asyncio.create_task(collect(rt, "a"))
        await started.wait()
        with pytest.raises(OverloadedError):
            await collect(rt, "b")
        first.cancel()
        await asyncio.wait([first])


async def test_two_readers_of_one_stream_are_an_error_and_one_answer() -> None:
    calls: list[str] = []
    proceed = asyncio.Event()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            calls.append(ctx.session_id)
            await proceed.wait()
            yield say("x")

    async with Runtime(settings(), app=App) as rt:
        stream = rt.invoke("hi")
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already reading"):
            await anext(stream)
        proceed.set()
        assert (await first).content == "x"
        await stream.aclose()
    assert len(calls) == 1


async def test_what_is_spawned_while_closing_is_refused() -> None:
    refused: list[Exception] = []

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            async def respawn() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    try:
                        ctx.spawn(respawn())
                    except InvocationClosedError as error:
                        refused.append(error)

            ctx.spawn(respawn())
            await asyncio.sleep(0)
            yield say("x")
            raise ValueError("ends")

    async with Runtime(settings(), app=App) as rt:
        with pytest.raises(ValueError, match="ends"):
            await collect(rt)
    assert len(refused) == 1


async def test_work_that_outlives_its_invocation_can_not_use_it() -> None:
    outcome: asyncio.Future[list[type[BaseException]]] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            async def late() -> None:
                await over.wait()
                calls = (runtime.models.main([msg]), runtime.session.load_session_state("s"))
                results = await asyncio.gather(*calls, return_exceptions=True)
                outcome.set_result([type(result) for result in results if isinstance(result, BaseException)])

            self.late = asyncio.create_task(late())
            yield say("x")

    async with Runtime(settings(), app=App) as rt:
        await collect(rt)
        over.set()
        assert await outcome == [InvocationClosedError, InvocationClosedError]


async def test_a_message_that_the_app_changes_later_was_sent_as_it_was() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            growing = say("a")
            for letter in "bc":
                yield growing
                growing.content = f"{growing.content}{letter}"

    async with Runtime(settings(), app=App) as rt:
        messages = [msg async for msg in rt.invoke("hi")]
    assert [msg.content for msg in messages] == ["a", "ab"]
    assert messages[0].id == messages[1].id


async def test_whoever_shuts_down_second_waits_for_the_first() -> None:
    order: list[str] = []

    class App(AgentApp):
        async def on_shutdown(self) -> None:
            order.append("begins")
            await asyncio.sleep(0)
            order.append("ends")

    rt = Runtime(settings(), app=App)
    await rt.initialize()

    async def shutdown() -> None:
        await rt.shutdown()
        order.append("returned")

    await asyncio.gather(shutdown(), shutdown())
    assert order == ["begins", "ends", "returned", "returned"]


async def test_a_runtime_does_not_wait_for_itself() -> None:
    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            with pytest.raises(RuntimeNotReadyError, match="would wait for itself"):
                await runtime.shutdown()
            yield say("still here")

        async def on_startup(self) -> None:
            with pytest.raises(RuntimeNotReadyError, match="while the runtime starts"):
                await runtime.shutdown()

    async with Runtime(settings(), app=App) as rt:
        assert await collect(rt) == ["still here"]


async def test_a_notebook_that_initializes_twice_is_told(tmp_path: Any) -> None:
    (tmp_path / "agentapp.yaml").write_text("models: {main: {provider: offline}}\n")
    (tmp_path / "app.py").write_text("from agentscope.runtime import AgentApp\nclass App(AgentApp): pass\n")
    started = await runtime.initialize(tmp_path)
    try:
        with pytest.raises(RuntimeNotReadyError, match="initialized already"):
            await runtime.initialize(tmp_path)
        assert runtime.settings is started.settings
    finally:
        await runtime.shutdown()


async def test_overrides_end_in_any_order() -> None:
    async with Runtime(settings(), app=Echo) as rt:
        first, second = rt.override(models={"main": Named("a")}), rt.override(models={"main": Named("b")})
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert (await rt.models.main([say("hi")])).text == "b"
        second.__exit__(None, None, None)
        assert (await rt.models.main([say("hi")])).text == "hi"


class Named(ChatModelBase):
    """Says its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def stream(self, messages: object, **kwargs: object) -> AsyncGenerator[ChatChunk, None]:
        """Yield the name."""
        yield ChatChunk(self._name)


async def test_an_invocation_cancelled_before_it_began_is_told_to_its_reader() -> None:
    async with Runtime(settings(), app=Echo) as rt:
        invocation = await rt.begin(say("hi"), lambda msg: (msg, 1), session_id="s", request_id="r")
        invocation.cancel()
        assert await invocation.pump.take() == []
        await invocation.aclose()
        assert isinstance(invocation.error, InvocationCancelledError)
        assert await collect(rt) == ["hi"]
