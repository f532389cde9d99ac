"""Projects that are written again and again, and served meanwhile."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from agentscope.runtime import Runtime, Service
from agentscope.server import SERVICE, ServerRunner, create_app

SECONDS = 20
"""How long something may take that is not to hang."""

_YAML = "models: {main: {provider: offline}}\nsession: {backend: memory}\n"

_APP = """
import asyncio

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime

import version


class App(AgentApp):
    async def __call__(self, msg, ctx: SessionContext):
        yield Msg("app", version.NUMBER, "assistant")
"""


class Project:
    """A folder with an app that answers with its version, which the file beside it holds."""

    def __init__(self, folder: Path, yaml: str = _YAML, app: str = _APP) -> None:
        self.folder = folder
        self.yaml = yaml
        folder.mkdir(exist_ok=True)
        self.write(yaml, app)
        self.number(1)

    def write(self, yaml: str | None = None, app: str | None = None) -> None:
        """Write the files that are given."""
        if yaml is not None:
            (self.folder / "agentapp.yaml").write_text(yaml)
        if app is not None:
            (self.folder / "app.py").write_text(app)

    def number(self, number: int) -> None:
        """Be that version."""
        (self.folder / "version.py").write_text(f"NUMBER = 'version {number}'\n")


@dataclass(frozen=True)
class ServedProject:
    """A project that is served, and a client of its server."""

    project: Project
    service: Service
    client: ClientSession
    runner: ServerRunner

    async def says(self, session_id: str = "s1", content: str = "hello", status: int = 200) -> str:
        """What the app answers, without its trailer; the whole body of another status."""
        body = {"session_id": session_id, "message": {"name": "user", "role": "user", "content": content}}
        async with self.client.post("/invoke", json=body, params={"stream": "false"}) as response:
            assert response.status == status, await response.text()
            if status != 200:
                return await response.text()
            document: dict[str, Any] = await response.json()
            return ", ".join(message["content"] for message in document["messages"])

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """What ``/ready`` answers."""
        async with self.client.get("/ready") as response:
            return response.status, await response.json()


@asynccontextmanager
async def served_project(project: Project, *assignments: str, patience: float = 10.0) -> AsyncGenerator[ServedProject]:
    """Serve a project on a free port."""
    app = create_app(Service(Runtime.from_project(project.folder, assignments=assignments), patience=patience))
    runner = ServerRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            yield ServedProject(project, app[SERVICE], client, runner)
    finally:
        await runner.cleanup()


_GATED = """
import asyncio

from agentscope.message import Msg
from agentscope.runtime import AgentApp, runtime

import version


class App(AgentApp):
    async def __call__(self, msg, ctx):
        if msg.get_text_content() == "wait":
            yield Msg("app", f"first {version.NUMBER}", "assistant")
            await asyncio.get_running_loop().gate.wait()
        yield Msg("app", version.NUMBER, "assistant")

    async def on_shutdown(self):
        asyncio.get_running_loop().closed.append(version.NUMBER)
"""


def gated(folder: Path) -> tuple[Project, asyncio.Event, list[str]]:
    """A project whose app waits for an event when it is told to wait, and notes its shut-downs in a list."""
    loop: Any = asyncio.get_running_loop()
    gate, closed = asyncio.Event(), list[str]()
    loop.gate, loop.closed = gate, closed
    return Project(folder, app=_GATED), gate, closed


async def until_stopped(old: Runtime) -> None:
    """Return when a runtime has shut down."""
    async with asyncio.timeout(SECONDS):
        while old.state != "stopped":  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0)


async def begun(served: ServedProject, session_id: str) -> "asyncio.Task[list[str]]":
    """An invocation that waits; return when its first line has come."""
    first = asyncio.Event()

    async def invoke() -> list[str]:
        body = {"session_id": session_id, "message": {"name": "user", "role": "user", "content": "wait"}}
        async with served.client.post("/invoke", json=body) as response:
            lines: list[str] = []
            async for line in response.content:
                document = json.loads(line)
                assert "error" not in document, line
                lines += [document["content"]] if "content" in document else []
                first.set()
            return lines

    task = asyncio.create_task(invoke())
    await asyncio.wait_for(first.wait(), SECONDS)
    return task


HANGING = """
import asyncio
from agentscope.runtime import AgentApp

class App(AgentApp):
    async def on_startup(self):
        asyncio.get_running_loop().starts.set()
        await asyncio.Event().wait()
"""
"""An app whose start hangs, once it has set ``starts`` of the loop."""
