"""What the tests of the MCP adapter share: calls, the server's own account of them, and the log as events."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from agentscope.runtime.settings import McpServerSettings
from agentscope.tool import ToolResponse, ToolSource
from agentscope_adapters.mcp.server import McpServer

SECONDS = 20.0


async def call(source: ToolSource, tool: str, **arguments: Any) -> ToolResponse:
    """Call a tool to its end."""
    responses = [response async for response in source.tools[tool].call(arguments)]
    assert len(responses) == 1
    assert responses[0].is_last
    return responses[0]


async def said(source: ToolSource, tool: str, **arguments: Any) -> str:
    """The one text that a tool answers with."""
    response = await call(source, tool, **arguments)
    [block] = response.content
    assert block["type"] == "text"
    return block["text"]


class Connect(Protocol):
    """Opens a connection that is closed after the test. ``values`` are settings."""

    async def __call__(self, **values: Any) -> McpServer:
        """Open it."""
        ...


@asynccontextmanager
async def connected(settings: McpServerSettings, project: Path) -> AsyncGenerator[McpServer]:
    """A connection, closed afterwards."""
    server = McpServer("echo", settings, project)
    await server.open()
    try:
        yield server
    finally:
        await server.aclose()


class Account:
    """What the tool ``work`` reports of itself, over a connection that doesn't pass through the library."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.port = 0
        self.tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._news = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen to one call."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks[task] = writer
        try:
            while line := await reader.readline():
                self.words.append(line.decode().strip())
                self._news.set()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def first(self) -> str:
        """The first word."""
        async with asyncio.timeout(SECONDS):
            while not self.words:
                await self._news.wait()
        return self.words[0]

    async def hears(self, word: str) -> None:
        """Wait until a word has been reported."""
        async with asyncio.timeout(SECONDS):
            while word not in self.words:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def account() -> AsyncGenerator[Account]:
    """An account that can be reported to."""
    kept = Account()
    listener = await asyncio.start_server(kept.take, "127.0.0.1", 0)
    kept.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield kept
    for writer in kept.tasks.values():
        writer.close()
    await asyncio.gather(*kept.tasks)


class Lines(logging.Handler):
    """The adapter's log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)
        self._news.set()

    def count(self, text: str, level: int) -> int:
        """How many lines of that level have a text in them."""
        return sum(record.levelno == level and text in record.getMessage() for record in self.records)

    async def has(self, text: str, times: int = 1) -> None:
        """Wait until as many lines have a text in them."""
        async with asyncio.timeout(SECONDS):
            while sum(text in record.getMessage() for record in self.records) < times:
                self._news.clear()
                await self._news.wait()


@contextmanager
def log_lines() -> Generator[Lines]:
    """The adapter's log from here on, at level debug."""
    log, lines = logging.getLogger("agentscope.mcp"), Lines()
    level = log.level
    log.addHandler(lines)
    log.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        log.removeHandler(lines)
        log.setLevel(level)
