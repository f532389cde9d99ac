"""A browser reads answers through nginx line by line, as the app says them, also over a lost connection."""

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext
from browser.chromium import showing
from browser.relay import Relay, relay_to
from deploy.proxy import running_nginx
from serving import served

PAGE = Path(__file__).with_name("page.html").read_bytes()
LINES = 5
LAST_BEFORE_CUT = "line 2"
SECONDS = 100
"""How long it may take, on a busy machine; it is a matter of a few seconds."""


class Reports:
    """What the page says that it has read, by who read it."""

    def __init__(self) -> None:
        self.lines: defaultdict[str, list[str]] = defaultdict(list)
        self._news = asyncio.Condition()

    async def receive(self, request: web.Request) -> web.Response:
        """A line has come."""
        report = await request.json()
        async with self._news:
            self.lines[report["reader"]].append(report["line"])
            self._news.notify_all()
        return web.Response()

    async def until(self, reader: str, line: str) -> None:
        """Return when the browser has a line."""
        async with self._news:
            await self._news.wait_for(lambda: line in self.lines[reader])


def speaker(reports: Reports, cut: Callable[[], None]) -> type[AgentApp]:
    """An app that goes on when the browser has what it said: a line that is held back anywhere would be its last.

    Of what ``EventSource`` reads, which is made for that, the connection is cut in the middle.
    """

    class Speaker(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            for number in range(LINES):
                yield Msg("assistant", f"line {number}", "assistant")
                await reports.until(ctx.session_id, f"line {number}")
                if (ctx.session_id, f"line {number}") == ("eventSource", LAST_BEFORE_CUT):
                    cut()

    return Speaker


@asynccontextmanager
async def page(reports: Reports) -> AsyncGenerator[str]:
    """The address of the page, and of where it reports to: another origin than the agents'."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=PAGE, content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/", show), web.post("/report", reports.receive)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder with a short path: Chromium makes sockets in it."""
    made = Path(tempfile.mkdtemp(prefix="browser-"))
    yield made
    # Processes that were killed may still have it open.
    shutil.rmtree(made, ignore_errors=True)


async def test_a_browser_has_each_line_before_the_app_says_the_next(folder: Path) -> None:
    reports, wires = Reports(), list[Relay]()
    app = speaker(reports, lambda: wires[0].cut())
    async with page(reports) as origin:
        server = {"replay_ttl": 60, "on_disconnect": "continue", "cors_origins": [origin]}
        async with served(app, server=server) as agents, relay_to(agents.port) as wire:
            wires.append(wire)
            with running_nginx(folder, wire.port) as address, showing(f"{origin}/?server={address}", folder) as output:
                try:
                    async with asyncio.timeout(SECONDS):
                        await reports.until("page", "done")
                except TimeoutError:
                    said = f"{dict(reports.lines)}\n{output.read_text(errors='replace')[-5000:]}"
                    pytest.fail(f"the browser waits for a line: {said}")
    whole = [*(f"line {number}" for number in range(LINES)), "done"]
    after = whole.index(LAST_BEFORE_CUT) + 1
    resumed = [*whole[:after], "lost", *whole[after:]]
    assert reports.lines == {"fetchLines": whole, "fetchEvents": whole, "eventSource": resumed, "page": ["done"]}
