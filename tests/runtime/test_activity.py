"""What a platform is told of how much a service does."""

import asyncio
import resource
import sys
from types import SimpleNamespace

import pytest

from agentscope.errors import InvocationCancelledError, OverloadedError, SessionBusyError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, Service, SessionContext, _activity
from agentscope.runtime._activity import Activity
from platform_server import PlatformServer
from serving import settings


class _Does(AgentApp):
    """Does as it is told."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
        if msg.get_text_content() == "fail":
            raise ValueError("no")
        if msg.get_text_content() == "wait":
            await asyncio.Event().wait()
        return msg


async def _says(runtime: Runtime, text: str, session_id: str) -> list[object]:
    return [msg.content async for msg in runtime.invoke(text, session_id=session_id)]


async def test_a_heartbeat_counts_what_is_asked_for_and_what_fails_but_not_what_clients_do_themselves() -> None:
    async with PlatformServer() as platform:
        served = settings(
            platform={"endpoint": platform.endpoint, "heartbeat_interval": 60},
            session={"backend": "memory", "on_conflict": "reject"},
            server={"max_concurrent_invocations": 1, "max_queued": 0},
        )
        async with Service(Runtime(served, app=_Does)) as service:
            runtime = service.runtime

            def metrics(*names: str) -> list[int]:
                told = service.instance.heartbeat().metrics
                return [int(told[name]) for name in names]

            counts = ("total_requests", "failed_requests", "active_sessions", "active_invocations")
            assert metrics(*counts) == [0, 0, 0, 0]
            assert await _says(runtime, "hello", "a") == ["hello"]
            assert await _says(runtime, "again", "a") == ["again"]
            assert metrics(*counts) == [2, 0, 1, 0]
            with pytest.raises(ValueError, match="no"):
                await _says(runtime, "fail", "b")
            assert metrics(*counts) == [3, 1, 2, 0]
            waiting = asyncio.create_task(_says(runtime, "wait", "c"))
            while not runtime.running:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0)
            assert metrics("active_invocations") == [1]
            with pytest.raises(SessionBusyError):
                await _says(runtime, "hello", "c")
            with pytest.raises(OverloadedError):
                await _says(runtime, "hello", "d")
            assert await runtime.cancel_session("c")
            with pytest.raises(InvocationCancelledError):
                await waiting
            assert metrics(*counts) == [6, 2, 3, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is the most there ever was")
async def test_a_heartbeat_tells_the_memory_of_this_process_in_mebibytes() -> None:
    async with Service(Runtime(settings(), app=_Does)) as service:
        told = service.instance.heartbeat().metrics["memory_usage_mb"]
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert highest / 4 < told <= highest + 1


def test_a_session_is_active_for_five_minutes_after_its_last_invocation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_activity, "time", SimpleNamespace(monotonic=lambda: clock.now))
    activity = Activity()
    activity.note("a")
    clock.now += 100
    activity.note("b")
    clock.now += 100
    activity.note("a")
    clock.now += 199
    assert activity.sessions == 2
    clock.now += 2
    assert activity.sessions == 1
    clock.now += 100
    assert activity.sessions == 0


def test_sessions_are_counted_up_to_a_limit_and_take_no_more_memory_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_activity, "_MOST_SESSIONS", 3)
    activity = Activity()
    for number in range(10):
        activity.note(str(number))
    assert activity.sessions == 3
