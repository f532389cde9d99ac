"""What a new version says of settings that old and new share, and of those that belong to the process."""

import asyncio
from pathlib import Path

import pytest

from agentscope.errors import RuntimeNotReadyError
from agentscope.message import Msg
from agentscope.runtime import Runtime, Service
from reload.projects import SECONDS, Project, begun, gated, served_project
from serving import until_waiting


@pytest.mark.parametrize(
    ("yaml", "session_id", "status", "code"),
    [
        pytest.param("session: {backend: memory, on_conflict: reject}", "a", 409, "SESSION_BUSY", id="on_conflict"),
        pytest.param("session: {backend: memory, queue_timeout: 0.05}", "a", 409, "SESSION_BUSY", id="queue_timeout"),
        pytest.param(
            "session: {backend: memory}\nserver: {max_concurrent_invocations: 1, max_queued: 0}",
            "b",
            429,
            "OVERLOADED",
            id="max_queued",
        ),
    ],
)
async def test_who_has_to_wait_and_how_long_is_what_the_new_version_says(
    tmp_path: Path, yaml: str, session_id: str, status: int, code: str
) -> None:
    project, gate, _ = gated(tmp_path)
    async with served_project(project) as served:
        running = await begun(served, "a")
        project.write(yaml=f"models: {{main: {{provider: offline}}}}\n{yaml}\n")
        await served.service.reload()
        async with asyncio.timeout(SECONDS):
            assert code in await served.says(session_id, status=status)
        gate.set()
        await running


async def test_another_platform_is_used_only_after_a_restart_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served_project(Project(tmp_path)) as served:
        before = served.service.runtime.settings.platform
        served.project.write(yaml=served.project.yaml + "platform: {endpoint: 'http://127.0.0.1:9', instance_id: x}\n")
        await served.service.reload()
        assert served.service.runtime.settings.platform == before
        async with served.client.get("/health") as response:
            assert (await response.json())["instance_id"] == before.instance_id
    assert "used only after a restart: platform" in caplog.text


async def test_who_waits_while_a_reload_changes_whose_sessions_are_whose_is_told_to_try_again(tmp_path: Path) -> None:
    project, gate, _ = gated(tmp_path)
    yaml = (
        "models: {main: {provider: offline}}\nsession: {backend: memory, owner_claim: %s}\n"
        "server: {auth: {tokens: [a-token-of-many-letters]}}\n"
    )
    project.write(yaml=yaml % "sub")
    async with Service(Runtime.from_project(project.folder)) as service:
        old, who = service.runtime, {"sub": "anna", "team": "red"}
        first = old.invoke("wait", session_id="a", identity=who)
        await anext(first)

        async def ask() -> list[Msg]:
            return [msg async for msg in old.invoke("hello", session_id="a", identity=who)]

        waiting = asyncio.create_task(ask())
        await until_waiting(old, 1)
        project.write(yaml=yaml % "team")
        await service.reload()
        gate.set()
        assert [msg.content async for msg in first] == ["version 1"]
        with pytest.raises(RuntimeNotReadyError, match="whose sessions are whose was changed by a reload"):
            await waiting
