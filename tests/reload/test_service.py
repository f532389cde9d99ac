"""A service: what it starts, counts, tells and stops, whenever somebody has enough."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentscope.errors import InvocationCancelledError, RuntimeNotReadyError, UserError
from agentscope.runtime import Runtime, Service, _resources, _versions
from agentscope.runtime._succession import Heirloom
from platform_server import PlatformServer
from reload.projects import HANGING, SECONDS, Project, begun, gated, served_project, until_stopped
from serving import Echo, settings


async def test_a_service_is_started_once(tmp_path: Path) -> None:
    async with Service(Runtime.from_project(Project(tmp_path).folder)) as service:
        with pytest.raises(RuntimeNotReadyError, match="a service is started once"):
            await service.__aenter__()
        assert service.runtime.state == "running"


async def test_a_first_start_that_a_check_refuses_closes_what_was_opened(tmp_path: Path) -> None:
    async with PlatformServer() as platform:
        platform_settings = (f"platform.endpoint={platform.endpoint}", "platform.heartbeat_interval=60")
        service = Service(Runtime.from_project(Project(tmp_path).folder, assignments=platform_settings))

        def refuse(_: Runtime) -> None:
            raise UserError("not so")

        service.checks.append(refuse)
        with pytest.raises(UserError, match="not so"):
            await service.__aenter__()
        assert service.runtime.state == "stopped"
        assert platform.heartbeats[-1].status == "stopped"


async def test_what_runs_on_the_old_version_is_counted_until_it_ends(tmp_path: Path) -> None:
    project, gate, _ = gated(tmp_path)
    async with served_project(project) as served:
        old = served.service.runtime
        running = await begun(served, "a")
        await served.service.reload()
        assert served.service.running == 1
        assert served.service.instance.heartbeat().metrics["active_invocations"] == 1
        gate.set()
        await running
        await until_stopped(old)
        assert served.service.running == 0


async def test_a_failure_that_is_nobodys_mistake_is_logged_whole_and_told_by_its_name_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served_project(Project(tmp_path)) as served:

        def fail(_: Runtime) -> None:
            raise RuntimeError("a secret")

        served.service.checks.append(fail)
        await served.service.reload_and_tell()
        assert served.service.reload_error == "RuntimeError"
        assert (await served.ready())[1]["reload_error"] == "RuntimeError"
        assert "not reloaded, the old version serves on" in caplog.text
        assert await served.says() == "version 1"


async def test_a_reload_where_there_is_nothing_to_reload_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Runtime(settings(), app=Echo) as started, Service(started) as service:
        await service.reload_and_tell()
    assert "not reloaded: a runtime that is somebody else's can't be reloaded" in caplog.text


async def test_each_reload_that_is_asked_for_after_another_has_begun_takes_place(tmp_path: Path) -> None:
    async with served_project(Project(tmp_path)) as served:
        for number in (2, 3):
            before = served.service.runtime
            served.project.number(number)
            served.service.reload_soon()
            await until_stopped(before)
            assert await served.says() == f"version {number}"


async def test_a_new_version_that_has_started_when_the_service_stops_is_shut_down(tmp_path: Path) -> None:
    service = Service(Runtime.from_project(Project(tmp_path).folder))
    made: list[Runtime] = []
    stopping: list[asyncio.Task[None]] = []

    def stop(started: Runtime) -> None:
        # It begins after the start is through, and before the reload goes on.
        made.append(started)
        stopping.append(asyncio.create_task(service.drain(0.0)))

    async with service:
        service.checks.append(stop)
        with pytest.raises(RuntimeNotReadyError, match="the service stops"):
            await service.reload()
        await asyncio.gather(*stopping)
    assert [each.state for each in made] == ["stopped"]


async def test_who_asks_for_a_reload_and_is_cancelled_meanwhile_is_cancelled(tmp_path: Path) -> None:
    project = Project(tmp_path)
    loop: Any = asyncio.get_running_loop()
    loop.starts = asyncio.Event()
    async with served_project(project) as served:
        project.write(app=HANGING)
        reloading = asyncio.create_task(served.service.reload())
        await asyncio.wait_for(loop.starts.wait(), SECONDS)
        reloading.cancel()
        await asyncio.wait([reloading])
        assert reloading.cancelled()
        assert await served.says() == "version 1"


async def test_an_old_version_that_does_not_close_well_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = Project(tmp_path)
    app = (tmp_path / "app.py").read_text()
    good.write(app=f"{app}\n    async def on_shutdown(self):\n        raise ValueError('it sticks')\n")
    async with served_project(good) as served:
        old, retired = served.service.runtime, asyncio.Event()
        served.service.on_retired = retired.set
        good.write(app=app)
        await served.service.reload()
        await asyncio.wait_for(retired.wait(), SECONDS)
        assert old.state == "stopped"
        assert "the old version is shut down, but not everything closed" in caplog.text
        assert "it sticks" in caplog.text
        assert await served.says() == "version 1"


_DEAF = """
import asyncio
from agentscope.runtime import AgentApp

class App(AgentApp):
    async def on_startup(self):
        loop = asyncio.get_running_loop()
        loop.starts.set()
        while not loop.gate.is_set():
            try:
                await loop.gate.wait()
            except asyncio.CancelledError:
                pass
"""


async def test_a_start_that_does_not_end_when_it_is_cancelled_keeps_no_service_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_versions, "CANCELLED_SECONDS", 0.05)
    loop: Any = asyncio.get_running_loop()
    loop.starts, loop.gate = asyncio.Event(), asyncio.Event()
    project = Project(tmp_path)
    service = Service(Runtime.from_project(project.folder))
    async with service:
        project.write(app=_DEAF)
        reloading = asyncio.create_task(service.reload())
        await asyncio.wait_for(loop.starts.wait(), SECONDS)
        try:
            async with asyncio.timeout(SECONDS):
                await service.aclose()
        finally:
            loop.gate.set()
        assert service.runtime.state == "stopped"
        assert "starts on after its cancellation and is left behind" in caplog.text
        with pytest.raises(RuntimeNotReadyError, match="the service stops"):
            await reloading


_NEVER_CLOSES = """
import asyncio

from agentscope.message import Msg
from agentscope.runtime import AgentApp


class App(AgentApp):
    async def __call__(self, msg, ctx):
        yield Msg("app", "begun", "assistant")
        await asyncio.Event().wait()

    async def on_shutdown(self):
        await asyncio.Event().wait()
"""


async def test_a_hurry_is_for_the_old_version_and_the_new_one_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_resources, "HURRIED_SECONDS", 0.05)
    service = Service(Runtime.from_project(Project(tmp_path, app=_NEVER_CLOSES).folder))
    await service.__aenter__()
    old = service.runtime
    answer = old.invoke("hello", session_id="a")
    await anext(answer)
    await service.reload()
    assert old.state == "draining"
    service.hurry()
    async with asyncio.timeout(_resources.CLOSE_SECONDS / 2):
        with pytest.raises(ExceptionGroup, match=r"^not everything closed: on_shutdown: not closed within .* seconds"):
            await service.aclose()
    assert [old.state, service.runtime.state] == ["stopped", "stopped"]
    with pytest.raises(InvocationCancelledError):
        await anext(answer)


async def test_what_is_left_to_the_next_version_is_closed_once_by_the_last_who_has_it() -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def opened() -> AsyncGenerator[str]:
        yield "a store"
        closed.append("a store")

    first: Heirloom[str] = await Heirloom[str].open("its settings", opened())
    second = first.share()
    assert second.value == "a store"
    await first.release()
    assert closed == []
    await second.release()
    assert closed == ["a store"]
