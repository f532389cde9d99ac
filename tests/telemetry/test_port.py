"""What the kernel tells, and to whom: whatever implements the port may take the place of ours."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from agentscope.errors import (
    AuthenticatorUnavailableError,
    ForbiddenError,
    InvocationCancelledError,
    InvocationTimeoutError,
    OverloadedError,
    RuntimeNotReadyError,
    SessionBusyError,
    SessionConflictError,
    SessionNotFoundError,
    SessionStoreError,
)
from agentscope.message import Msg
from agentscope.model import ModelRateLimitError
from agentscope.runtime import AgentApp, Runtime, outcome_of, runtime
from agentscope.server._errors import refusal
from agentscope.telemetry import OFF, Observation, Operation, current_observer, observed, together
from agentscope.testing import FakeToolkit, InMemorySessionRepository, ScriptedModel
from serving import Echo, settings
from telemetry.apps import Obedient, tool_use


class Recorder:
    """Telemetry that keeps what it is told: operation, name, and all that is known at the end, with its parent."""

    wants_contents = False
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, told: "list[Recorder] | None" = None, parent: "Recorder | None" = None) -> None:
        self.told: list[Recorder] = [] if told is None else told
        self.parent = parent
        self.operation = self.name = ""
        self.about: dict[str, object] = {}
        self.error: BaseException | None = None
        self.ends = 0

    def begin(self, operation: Operation, name: str = "", **about: object) -> "Recorder":
        """See ``Observer.begin``."""
        begun = Recorder(self.told, self)
        begun.operation, begun.name, begun.about = operation, name, about
        self.told.append(begun)
        return begun

    def end(self, error: BaseException | None = None, **about: object) -> None:
        """See ``Observation.end``."""
        self.ends += 1
        self.error = error
        self.about |= about

    def error_sent(self, code: str) -> None:
        """See ``Telemetry.error_sent``."""

    def is_told_of(self, operation: Operation) -> bool:
        """Whether one of these has begun."""
        return any(each.operation == operation for each in self.told)

    def one(self, operation: Operation) -> "Recorder":
        """The only one of these."""
        (found,) = [each for each in self.told if each.operation == operation]
        return found


async def test_another_telemetry_takes_the_place_of_ours() -> None:
    recorder, kernel = Recorder(), Runtime(settings(), app=Obedient)
    with kernel.override(telemetry=recorder):
        async with kernel:
            assert [msg.content async for msg in kernel.invoke("model hello")] == ["hello"]
            assert [msg async for msg in kernel.invoke("tool add")] == []
    assert [(each.operation, each.name) for each in recorder.told] == [
        ("invocation", ""),
        ("model_call", "main"),
        ("invocation", ""),
        ("tool_call", "add"),
    ]
    assert all(each.ends == 1 for each in recorder.told)
    assert recorder.one("model_call").parent is recorder.told[0]


def test_what_is_no_telemetry_is_refused() -> None:
    kernel = Runtime(settings(), app=Echo)
    with pytest.raises(TypeError, match="a str is no Telemetry"), kernel.override(telemetry="loud"):
        pass


async def test_what_the_app_starts_before_the_first_request_is_told_as_well() -> None:
    class Warm(Echo):
        async def on_startup(self) -> None:
            await runtime.models.main([Msg("user", "hello", "user")])

    recorder, kernel = Recorder(), Runtime(settings(), app=Warm)
    with kernel.override(telemetry=recorder):
        async with kernel:
            pass
    assert recorder.one("model_call").parent is recorder
    assert current_observer.get() is OFF


async def test_a_stream_that_its_reader_leaves_has_not_failed() -> None:
    class Hasty(AgentApp):
        async def __call__(self, msg: Msg, ctx: Any) -> Msg:
            async with runtime.models.main.stream([msg]) as stream:
                async for chunk in stream:
                    # The reader is no part of the call that it reads.
                    assert current_observer.get() is recorder.one("invocation")
                    return Msg("assistant", chunk.text, "assistant")
            raise AssertionError

    recorder, kernel = Recorder(), Runtime(settings(), app=Hasty)
    with kernel.override(telemetry=recorder, models={"main": ScriptedModel("one two three")}):
        async with kernel:
            assert [msg async for msg in kernel.invoke("hello")]
    call = recorder.one("model_call")
    assert isinstance(call.error, GeneratorExit)
    assert call.ends == 1


async def test_what_reads_a_tool_is_no_part_of_its_call() -> None:
    class Reader(AgentApp):
        async def __call__(self, msg: Msg, ctx: Any) -> None:
            call = runtime.tools.call_tool_function(tool_use("where"))
            async for _ in call:
                assert current_observer.get() is recorder.one("invocation")
            await call.aclose()

    async def where() -> str:
        """Say where."""
        assert current_observer.get() is recorder.one("tool_call")
        return "here"

    recorder, kernel = Recorder(), Runtime(settings(), app=Reader)
    with kernel.override(telemetry=recorder, tools=FakeToolkit(where)):
        async with kernel:
            assert [msg async for msg in kernel.invoke("hello")] == []
    assert recorder.one("tool_call").about["failed"] is False


async def test_the_wait_for_a_session_that_another_process_has_is_told() -> None:
    class Holder(AgentApp):
        async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
            await runtime.session.load_session_state(ctx.session_id)
            yield msg
            if msg.content == "hold":
                await let_go.wait()

    let_go, shared, recorder = asyncio.Event(), InMemorySessionRepository(), Recorder()
    here, there = Runtime(settings(), app=Holder), Runtime(settings(), app=Holder)
    with here.override(session_repository=shared), there.override(session_repository=shared, telemetry=recorder):
        async with here, there:
            holding = here.invoke("hold", session_id="s1")
            assert (await anext(holding)).content == "hold"
            waiting = asyncio.create_task(anext(there.invoke("go on", session_id="s1")))
            while not recorder.is_told_of("lease_wait"):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
            assert recorder.one("lease_wait").ends == 0
            let_go.set()
            assert (await waiting).content == "go on"
    wait = recorder.one("lease_wait")
    assert (wait.ends, wait.error) == (1, None)
    assert wait.parent is recorder.one("session_load")


async def test_a_failure_inside_is_told_and_raised() -> None:
    recorder = Recorder()
    token = current_observer.set(recorder)
    with pytest.raises(ValueError, match="wrong"), observed("session_load"):
        raise ValueError("wrong")
    assert isinstance(recorder.one("session_load").error, ValueError)
    current_observer.reset(token)


async def test_all_are_told_of_all() -> None:
    first, second = Recorder(), Recorder()
    both = together([first, second])
    invocation: Observation = both.begin("invocation", "POST /invoke")
    invocation.begin("model_call", "main").end(None, input_tokens=1)
    invocation.end(None, code="ok")
    for recorder in (first, second):
        assert [each.operation for each in recorder.told] == ["invocation", "model_call"]
        assert recorder.one("model_call").parent is recorder.one("invocation")
        assert recorder.one("invocation").about["code"] == "ok"
    assert together([]) is OFF
    assert together([first]) is first


@pytest.mark.parametrize(
    "error",
    [
        SessionBusyError("s1", "busy"),
        SessionConflictError("s1", expected=1, found=2),
        SessionConflictError("s1", expected=None, found=2),
        SessionNotFoundError("s1", is_foreign=True),
        SessionNotFoundError("s1"),
        ForbiddenError("no"),
        OverloadedError(),
        InvocationCancelledError("cancelled", by_request=True),
        InvocationCancelledError("cancelled"),
        InvocationTimeoutError("late"),
        ModelRateLimitError("main"),
        SessionStoreError("gone"),
        RuntimeNotReadyError("stopping"),
        AuthenticatorUnavailableError("gone"),
        ValueError("wrong"),
    ],
    ids=repr,
)
def test_an_outcome_has_the_code_that_the_client_is_told(error: Exception) -> None:
    assert outcome_of(error) == refusal(error, "r1", debug=False).code


def test_the_outcome_of_what_went_well_is_ok() -> None:
    assert outcome_of(None) == "ok"
    assert outcome_of(asyncio.CancelledError()) == "CANCELLED"
