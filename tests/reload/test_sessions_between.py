"""What is done to a session while another version takes over."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentscope.errors import UserError
from agentscope.runtime import Runtime, Service
from agentscope.server import create_app
from reload.projects import Project
from serving import until_waiting

_COUNTING = """
import asyncio

from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp


class Count(StateModule):
    def __init__(self):
        super().__init__()
        self.turns = 0
        self.register_state("turns")


class App(AgentApp):
    async def on_startup(self):
        self.count = Count()

    async def __call__(self, msg, ctx):
        self.count.turns += 1
        yield Msg("app", str(self.count.turns), "assistant")
        if msg.get_text_content() == "wait":
            await asyncio.get_running_loop().gate.wait()
"""


async def turns() -> None:
    """Let everything go on that can."""
    for _ in range(200):
        await asyncio.sleep(0)


async def said(runtime: Runtime, text: str) -> list[Any]:
    """What the app says in the session."""
    return [msg.content async for msg in runtime.invoke(text, session_id="s1")]


async def test_a_deletion_that_waits_is_done_to_all_versions_and_keeps_its_store_open(tmp_path: Path) -> None:
    loop: Any = asyncio.get_running_loop()
    gate = loop.gate = asyncio.Event()
    project = Project(tmp_path, "session: {url: 'sqlite:///one.db'}\n", _COUNTING)
    async with Service(Runtime.from_project(tmp_path)) as service:
        old = service.runtime
        first = asyncio.create_task(said(old, "wait"))
        while not old.running:  # noqa: ASYNC110 - a number that nobody announces
            await asyncio.sleep(0)
        second = asyncio.create_task(said(old, "wait"))
        await until_waiting(old, 1)
        deleting = asyncio.create_task(old.delete_session("s1"))
        await turns()
        project.write(yaml="session: {url: 'sqlite:///two.db'}\n")
        await service.reload()
        gate.set()
        gate.clear()
        assert await first == ["1"]
        # The second runs on the new version, and nothing on the old one.
        while not service.runtime.running:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
        await turns()
        gate.set()
        assert await second == ["1"]
        assert await deleting is False
        assert await said(service.runtime, "hello") == ["1"]


async def test_why_a_version_is_refused_is_told_though_it_does_not_close(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = _COUNTING + "\n    async def on_shutdown(self):\n        raise RuntimeError('does not close')\n"
    project = Project(tmp_path, "session: {backend: memory}\n")
    service = Service(Runtime.from_project(tmp_path))
    create_app(service)
    async with service:
        project.write("session: {backend: memory, owner_claim: sub}\n", app)
        with pytest.raises(UserError, match=r"set server\.auth"):
            await service.reload()
        assert "set server.auth" in (service.reload_error or "")
        assert "not everything closed" in caplog.text
