"""A runtime that takes the place of another."""

import asyncio
import gc
import json
import logging
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from agentscope.errors import RuntimeNotReadyError, UserError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, Service, runtime
from agentscope.runtime.settings import Settings
from reload.projects import HANGING, SECONDS, Project, begun, gated, served_project, until_stopped
from serving import until_waiting


async def test_the_new_version_answers_after_a_reload_with_the_modules_beside_it(tmp_path: Path) -> None:
    async with served_project(Project(tmp_path)) as served:
        assert await served.says() == "version 1"
        served.project.number(2)
        assert await served.says() == "version 1"
        await served.service.reload()
        assert await served.says() == "version 2"


async def test_the_project_is_found_again_from_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "one")
    Project(tmp_path / "elsewhere").number(9)
    (tmp_path / "one" / "other.yaml").write_text((tmp_path / "one" / "agentapp.yaml").read_text())
    monkeypatch.chdir(tmp_path / "one")
    async with Service(Runtime.from_project(config=Path("other.yaml"))) as service:
        monkeypatch.chdir(tmp_path / "elsewhere")
        project.number(2)
        await service.reload()
        assert [msg.content async for msg in service.runtime.invoke("hi")] == ["version 2"]


async def test_a_module_that_changes_within_a_second_and_keeps_its_size_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    async with served_project(Project(tmp_path)) as served:
        written = (tmp_path / "version.py").stat()
        for number in range(2, 5):
            served.project.number(number)
            os.utime(tmp_path / "version.py", ns=(written.st_atime_ns, written.st_mtime_ns))
            await served.service.reload()
            assert await served.says() == f"version {number}"


async def test_what_runs_ends_on_the_old_version_which_is_then_shut_down(tmp_path: Path) -> None:
    project, gate, closed = gated(tmp_path)
    async with served_project(project) as served:
        old = served.service.runtime
        running = await begun(served, "a")
        project.number(2)
        await served.service.reload()
        assert await served.says("b") == "version 2"
        assert (old.state, closed) == ("draining", [])
        gate.set()
        assert await running == ["first version 1", "version 1"]
        await until_stopped(old)
        assert closed == ["version 1"]
    assert closed == ["version 1", "version 2"]


async def test_those_who_wait_for_a_session_run_on_the_new_version_in_their_order(tmp_path: Path) -> None:
    project, gate, _ = gated(tmp_path)
    async with served_project(project) as served:
        running = await begun(served, "a")
        waiting = [asyncio.create_task(served.says("a", f"{number}")) for number in range(3)]
        await until_waiting(served.service.runtime, 3)
        project.number(2)
        await served.service.reload()
        late = asyncio.create_task(served.says("a"))
        gate.set()
        assert await running == ["first version 1", "version 1"]
        assert await asyncio.gather(*waiting, late) == ["version 2"] * 4


async def test_an_old_invocation_keeps_its_session_from_the_new_version(tmp_path: Path) -> None:
    project, gate, _ = gated(tmp_path)
    project.write(yaml="models: {main: {provider: offline}}\nsession: {backend: memory, on_conflict: reject}\n")
    async with served_project(project) as served:
        running = await begun(served, "a")
        await served.service.reload()
        assert "SESSION_BUSY" in await served.says("a", status=409)
        gate.set()
        await running


async def test_an_old_invocation_can_be_cancelled_after_the_reload(tmp_path: Path) -> None:
    project, _, _ = gated(tmp_path)
    async with served_project(project) as served:
        body = {"session_id": "a", "message": {"name": "user", "role": "user", "content": "wait"}}
        async with served.client.post("/invoke", json=body) as response:
            await response.content.readline()
            await served.service.reload()
            async with served.client.post("/sessions/a/cancel") as cancelled:
                assert cancelled.status == 202
            assert json.loads(await response.content.readline())["error"]["code"] == "CANCELLED"


async def test_limits_count_old_and_new_together_and_are_those_of_the_new(tmp_path: Path) -> None:
    project, gate, _ = gated(tmp_path)
    yaml = project.yaml + "server: {max_concurrent_invocations: %d, max_queued: 0}\n"
    project.write(yaml=yaml % 1)
    async with served_project(project) as served:
        running = await begun(served, "a")
        await served.service.reload()
        assert "OVERLOADED" in await served.says("b", status=429)
        project.write(yaml=yaml % 2)
        await served.service.reload()
        assert await served.says("b") == "version 1"
        gate.set()
        await running


_SAVING = """
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, runtime


class App(AgentApp):
    async def on_startup(self):
        self.memory = InMemoryMemory()

    async def __call__(self, msg, ctx):
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        await self.memory.add(msg)
        if msg.get_text_content() == "save":
            await runtime.session.save_session_state(ctx.session_id, memory=self.memory)
        said = [each.get_text_content() for each in await self.memory.get_memory()]
        yield Msg("app", " ".join(said), "assistant")
"""


@pytest.mark.parametrize("session", ["{backend: memory}", "{backend: sql, auto_migrate: true}"], ids=["memory", "sql"])
async def test_saved_state_survives_and_what_was_never_saved_is_lost(tmp_path: Path, session: str) -> None:
    yaml = f"models: {{main: {{provider: offline}}}}\nsession: {session}\n"
    async with served_project(Project(tmp_path / "app", yaml, _SAVING)) as served:
        assert await served.says("a", "save") == "save"
        assert await served.says("a", "kept here alone") == "save kept here alone"
        before = served.service.runtime.container.session_repository()
        await served.service.reload()
        assert served.service.runtime.container.session_repository() is before
        assert await served.says("a", "and") == "save and"


async def test_a_new_session_store_takes_the_place_of_one_that_is_closed(tmp_path: Path) -> None:
    yaml = "models: {main: {provider: offline}}\nsession: {auto_migrate: true, url: 'sqlite+aiosqlite:///%s.db'}\n"
    async with served_project(Project(tmp_path, yaml % "one", _SAVING)) as served:
        old = served.service.runtime
        await served.says("a", "save")
        served.project.write(yaml=yaml % "two")
        await served.service.reload()
        assert await served.says("a", "hello") == "hello"
        await until_stopped(old)
        assert await served.says("b", "again") == "again"


@pytest.mark.parametrize(
    ("yaml", "app", "told"),
    [
        pytest.param("models: [", None, "agentapp.yaml", id="broken YAML"),
        pytest.param("models: {main: {provider: offlin}}", None, "did you mean 'offline'?", id="no such provider"),
        pytest.param("models: {main: {provider: offline}}\nsesion: {}", None, "sesion", id="no such key"),
        pytest.param(None, "raise ValueError('a secret')", "app.py:1: ValueError", id="app.py raises"),
        pytest.param(None, "class App(", "app.py:1", id="app.py can't be read"),
        pytest.param(None, "import helpers.missing", "no module 'helpers.missing'", id="a module of its own"),
        pytest.param(None, "import nothing_of_that_name", "nothing_of_that_name", id="a module that isn't there"),
        pytest.param(
            None,
            "from agentscope.runtime import AgentApp\nclass App(AgentApp):\n"
            "  async def on_startup(self):\n    raise RuntimeError('a secret')\n",
            "app.py:4: RuntimeError",
            id="on_startup raises",
        ),
        pytest.param(None, "import sys\nsys.exit(3)", "app.py:2: SystemExit", id="app.py exits"),
        pytest.param(
            None, "raise KeyboardInterrupt", "app.py:1: KeyboardInterrupt", id="app.py raises what Ctrl-C does"
        ),
        pytest.param(
            None,
            "import sys\nfrom agentscope.runtime import AgentApp\nclass App(AgentApp):\n"
            "  async def on_startup(self):\n    sys.exit('a secret')\n",
            "app.py:5: SystemExit",
            id="on_startup exits",
        ),
        pytest.param(
            None,
            "import asyncio\nfrom agentscope.runtime import AgentApp\nclass App(AgentApp):\n"
            "  async def on_startup(self):\n    raise asyncio.CancelledError\n",
            "app.py:5: CancelledError",
            id="on_startup is cancelled by itself",
        ),
        pytest.param(
            "models: {}\nmcp_servers: {tools: {transport: streamable_http, url: 'http://127.0.0.1:9/mcp'}}",
            None,
            "tools",
            id="its MCP server is down",
        ),
        pytest.param(
            "models: {main: {provider: offline}}\nsession: {backend: memory, owner_claim: sub}",
            None,
            "set server.auth",
            id="owners without authentication",
        ),
    ],
)
async def test_a_version_that_does_not_start_leaves_the_old_one_serving_and_says_why(
    tmp_path: Path, yaml: str | None, app: str | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path)
    good = (tmp_path / "agentapp.yaml").read_text(), (tmp_path / "app.py").read_text()
    (tmp_path / "helpers").mkdir()
    async with served_project(project) as served:
        old, modules = served.service.runtime, project_modules()
        project.write(yaml, app)
        for _ in range(2):
            with pytest.raises(UserError):
                await served.service.reload()
        assert served.service.runtime is old
        assert await served.says() == "version 1"
        status, ready = await served.ready()
        assert (status, ready["status"]) == (200, "ready")
        assert told in ready["reload_error"]
        assert "a secret" not in ready["reload_error"]
        assert served.service.instance.heartbeat().reload_error == ready["reload_error"]
        assert project_modules() == modules
        with caplog.at_level(logging.ERROR):
            await served.service.reload_and_tell()
        assert "the old version serves on" in caplog.text
        project.write(*good)
        project.number(2)
        await served.service.reload()
        assert await served.says() == "version 2"
        assert "reload_error" not in (await served.ready())[1]


def project_modules() -> set[str]:
    """The modules of projects that are loaded."""
    return {name for name in sys.modules if name.startswith("_agentscope_project_")}


async def test_nothing_of_the_old_version_is_left(tmp_path: Path) -> None:
    async with served_project(Project(tmp_path)) as served:
        await served.says()
        old = weakref.ref(served.service.runtime)
        app = weakref.ref(type(served.service.runtime.app))
        before = len(project_modules())
        await served.service.reload()
        await served.says()
        async with asyncio.timeout(SECONDS):
            while old() is not None or app() is not None:
                await asyncio.sleep(0.01)
                gc.collect()
        assert len(project_modules()) == before


async def test_code_outside_any_invocation_finds_the_new_runtime_while_the_old_one_ends(tmp_path: Path) -> None:
    project, gate, _ = gated(tmp_path)
    async with served_project(project) as served:
        running = await begun(served, "a")
        await served.service.reload()
        assert runtime.settings is served.service.runtime.settings
        gate.set()
        await running


async def test_reloads_that_are_asked_for_together_are_one_and_a_later_one_is_another(tmp_path: Path) -> None:
    async with served_project(Project(tmp_path)) as served:
        seen = {served.service.runtime}
        for _ in range(5):
            served.service.reload_soon()
        async with asyncio.timeout(SECONDS):
            while len(seen) < 2 or served.service.runtime.state != "running":
                seen.add(served.service.runtime)
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert served.service.runtime in seen
        served.project.number(2)
        await served.service.reload()
        assert await served.says() == "version 2"


async def test_many_clients_and_many_reloads_lose_nothing(tmp_path: Path) -> None:
    async with served_project(Project(tmp_path)) as served:
        stop = asyncio.Event()

        async def ask(number: int) -> list[str]:
            said: list[str] = []
            while not stop.is_set():
                said.append(await served.says(f"s{number}"))
            return said

        clients = [asyncio.create_task(ask(number)) for number in range(16)]
        for number in range(2, 12):
            served.project.number(number)
            await served.service.reload()
            assert await served.says("last") == f"version {number}"
        stop.set()
        for said in await asyncio.gather(*clients):
            numbers = [int(each.removeprefix("version ")) for each in said]
            assert numbers == sorted(numbers)
            assert numbers


@pytest.mark.parametrize("by_itself", [True, False], ids=["in the background", "that was called"])
async def test_a_stop_in_the_middle_of_a_reload_ends_both(tmp_path: Path, by_itself: bool) -> None:
    project = Project(tmp_path)
    loop: Any = asyncio.get_running_loop()
    loop.starts = asyncio.Event()
    async with served_project(project) as served:
        project.write(
            app="import asyncio\nfrom agentscope.runtime import AgentApp\nclass App(AgentApp):\n"
            "  async def on_startup(self):\n    asyncio.get_running_loop().starts.set()\n    await asyncio.sleep(60)\n"
        )
        reloading = asyncio.create_task(served.service.reload())
        if by_itself:
            reloading.cancel()
            served.service.reload_soon()
        await asyncio.wait_for(loop.starts.wait(), SECONDS)
        assert await served.says() == "version 1"
        async with asyncio.timeout(SECONDS):
            await served.runner.cleanup()
        assert served.service.runtime.state == "stopped"
        if not by_itself:
            with pytest.raises(RuntimeNotReadyError, match="the service stops"):
                await reloading
        with pytest.raises(RuntimeNotReadyError, match="stopped"):
            await served.service.reload()
    assert not project_modules()


async def test_a_start_that_hangs_is_said_and_given_up_for_the_next_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path)
    good = (tmp_path / "app.py").read_text()
    loop: Any = asyncio.get_running_loop()
    loop.starts = asyncio.Event()
    async with served_project(project, patience=0.05) as served:
        project.write(app=HANGING)
        served.service.reload_soon()
        await asyncio.wait_for(loop.starts.wait(), SECONDS)
        project.write(app=good)
        project.number(2)
        await asyncio.wait_for(served.service.reload(), SECONDS)
        assert await served.says() == "version 2"
    assert "has not started within 0.05 seconds" in caplog.text
    assert "had not started when the project is to be loaded again" in caplog.text


async def test_a_reload_that_is_asked_for_during_the_start_comes_after_it(tmp_path: Path) -> None:
    Project(tmp_path, app=HANGING.replace("await asyncio.Event()", "await asyncio.get_running_loop().gate"))
    loop: Any = asyncio.get_running_loop()
    loop.starts, loop.gate = asyncio.Event(), asyncio.Event()
    service = Service(Runtime.from_project(tmp_path))
    starting = asyncio.create_task(service.__aenter__())
    await asyncio.wait_for(loop.starts.wait(), SECONDS)
    first = service.runtime
    service.reload_soon()
    loop.gate.set()
    await starting
    try:
        async with asyncio.timeout(SECONDS):
            while service.runtime is first:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0)
    finally:
        await service.aclose()


async def test_a_stop_in_the_turn_in_which_the_new_version_has_started_leaves_none_running(tmp_path: Path) -> None:
    made: list[Runtime] = []
    for turns in range(40):
        service = Service(Runtime.from_project(Project(tmp_path / str(turns)).folder))
        service.checks.append(made.append)
        async with service:
            reloading = asyncio.create_task(service.reload())
            async with asyncio.timeout(SECONDS):
                while len(made) % 2:  # noqa: ASYNC110 - an event would come a turn later
                    await asyncio.sleep(0)
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            reloading.cancel()
            await asyncio.wait([reloading])
        assert {each.state for each in made} == {"stopped"}
        made.clear()


async def test_what_belongs_to_the_process_stays_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = Project(tmp_path)
    project.write(yaml=project.yaml + "server: {metrics: true}\n")
    async with served_project(project) as served:
        for yaml, told in ((project.yaml, 1), (project.yaml, 2), (project.yaml + "server: {metrics: true}\n", 2)):
            project.write(yaml=yaml)
            await served.service.reload()
            async with served.client.get("/metrics") as response:
                assert response.status == 200
            assert caplog.text.count("used only after a restart: server.metrics") == told


async def test_a_stop_cancels_what_runs_on_the_old_version_when_its_time_is_over(tmp_path: Path) -> None:
    project, _, closed = gated(tmp_path)
    async with served_project(project, "server.shutdown_timeout=0.1") as served:
        body = {"session_id": "a", "message": {"name": "user", "role": "user", "content": "wait"}}
        async with served.client.post("/invoke", json=body) as response:
            await response.content.readline()
            await served.service.reload()
            cleanup = asyncio.create_task(served.runner.cleanup())
            trailer = json.loads(await asyncio.wait_for(response.content.readline(), SECONDS))
            assert trailer["error"]["code"] == "CANCELLED"
        await asyncio.wait_for(cleanup, SECONDS)
    assert closed == ["version 1", "version 1"]


async def test_who_may_call_is_what_the_new_configuration_says(tmp_path: Path) -> None:
    async with served_project(Project(tmp_path)) as served:
        assert await served.says() == "version 1"
        served.project.write(yaml=served.project.yaml + "server: {auth: {tokens: [a-token-of-many-letters]}}\n")
        await served.service.reload()
        assert "UNAUTHORIZED" in await served.says(status=401)


async def test_what_only_a_restart_changes_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served_project(Project(tmp_path)) as served:
        served.project.write(yaml=served.project.yaml + "server: {port: 8099, metrics: true}\n")
        with caplog.at_level(logging.WARNING):
            await served.service.reload()
    assert "used only after a restart: server.port, server.metrics" in caplog.text
    assert served.service.runtime.settings.server.port == 8080


class _App(AgentApp):
    async def __call__(self, msg: Msg, ctx: Any) -> Msg:
        return msg


async def test_a_runtime_made_of_settings_or_started_by_somebody_else_is_not_reloaded(tmp_path: Path) -> None:
    settings = Settings.model_validate({"models": {}, "session": {"backend": "memory"}})
    async with Service(Runtime(settings, app=_App)) as service:
        with pytest.raises(RuntimeNotReadyError, match="made from settings"):
            await service.reload()
    async with Runtime.from_project(Project(tmp_path).folder) as started, Service(started) as service:
        with pytest.raises(RuntimeNotReadyError, match="somebody else's"):
            await service.reload()
    assert started.state == "stopped"


async def test_a_nested_invocation_stays_on_the_version_of_the_one_around_it(tmp_path: Path) -> None:
    loop: Any = asyncio.get_running_loop()
    loop.gate, loop.began = asyncio.Event(), asyncio.Event()
    app = """
import asyncio
from agentscope.message import Msg
from agentscope.runtime import AgentApp, runtime
import version

class App(AgentApp):
    async def __call__(self, msg, ctx):
        if msg.get_text_content() == "outer":
            asyncio.get_running_loop().began.set()
            await asyncio.get_running_loop().gate.wait()
            async for inner in runtime.invoke("inner"):
                yield inner
        yield Msg("app", version.NUMBER, "assistant")
"""
    async with served_project(Project(tmp_path, app=app)) as served:
        outer = asyncio.create_task(served.says("a", "outer"))
        await asyncio.wait_for(loop.began.wait(), SECONDS)
        served.project.number(2)
        await served.service.reload()
        loop.gate.set()
        assert await outer == "version 1, version 1"
        assert await served.says("a", "inner") == "version 2"
