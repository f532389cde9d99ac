"""The connection to one server: a task opens it, holds it, and opens it again; whoever calls uses it meanwhile."""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult, Tool

from agentscope.errors import ToolServerError
from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp._address import Address
from agentscope_adapters.mcp._client import Mode, answers, follow_changes, is_modern, list_tools, open_client
from agentscope_adapters.mcp._errands import Errands
from agentscope_adapters.mcp._failures import call_failed, leaf_of, why_not_connected
from agentscope_adapters.mcp._health import Attempt, Health, current_attempt

_log = logging.getLogger("agentscope.mcp")

_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_PING_SECONDS = 2.0
_FAREWELL_SECONDS = 2.0
_OWNER_SECONDS = 8.0
_BOTH_MODES: tuple[Mode, ...] = ("auto", "legacy")


class Connection:
    """The connection to the server ``name``. ``on_tools`` is told its tools, again whenever they may have changed."""

    def __init__(
        self, name: str, address: Address, settings: McpServerSettings, on_tools: Callable[[Sequence[Tool]], None]
    ) -> None:
        self._name = name
        self._address = address
        self._settings = settings
        self._on_tools = on_tools
        self._errands = Errands()
        self._owner: asyncio.Task[None] | None = None
        self._is_closing = False
        # What is open now.
        self._client: Client | None = None
        self._health = Health()
        self._limit: asyncio.Timeout | None = None
        # What brings it about.
        self._modes = _BOTH_MODES
        self._verify: ssl.SSLContext | None = None
        self._failure: str | None = None
        self._has_complained = False
        # Who waits for it.
        self._first_try = asyncio.Event()
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiting = 0

    @property
    def is_up(self) -> bool:
        """Whether it can be used now."""
        return self._client is not None and self._health.lost is None

    async def open(self, patience: float | None) -> str | None:
        """Start, and wait until the first try is over, or for ``patience`` seconds. Gives why it failed, or None."""
        if self._owner is None:
            self._owner = asyncio.get_running_loop().create_task(self._own(), context=Context())
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._first_try.wait()
        return None if self.is_up else self._failure

    async def aclose(self) -> None:
        """Leave, end what was started, and stop trying. It goes on when this is cancelled."""
        self._is_closing = True
        self._wanted.set()
        self._health.news.set()
        self._tell()
        # The server is told of each call that is given up.
        self._errands.cancel()
        if self._limit is not None and self._limit.when() is not None and not self._limit.expired():
            self._limit.reschedule(0)
        if self._owner is not None:
            _, late = await asyncio.wait((self._owner,), timeout=_OWNER_SECONDS)
            for owner in late:
                _log.error("MCP server %r: the connection would not end", self._name)
                owner.cancel()
        await self._errands.aclose()

    async def call(self, tool: str, shown: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Call the server's ``tool``, which errors call ``shown``.

        A call that the server may have got is never made again. Raises ``ToolServerError`` when there is no
        connection, or no answer, within the time-out, and when the connection is lost; ``ToolArgumentsError`` for
        arguments that the server refuses.
        """
        seconds = self._settings.timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            client, health = await self._usable(deadline)
            attempt, context = Attempt(), Context()
            context.run(current_attempt.set, attempt)
            work = client.call_tool(tool, dict(arguments))
            try:
                return await self._errands.within(deadline - loop.time(), work, context)
            except TimeoutError:
                # Frozen, or slow: the owner finds out.
                health.doubt("it did not answer a call")
                raise ToolServerError(
                    self._name, f"did not answer the call to {shown!r} within {seconds:g} seconds"
                ) from None
            except Exception as error:
                if attempt.sent == 0 and _is_of_connection(error, health):
                    # It never left: wait for the next connection.
                    health.lose(health.noticed or "it closed the connection")
                    continue
                raise call_failed(self._name, shown, error, attempt, health, self._address.secrets) from None

    async def _usable(self, deadline: float) -> tuple[Client, Health]:
        if self._client is not None and self._health.is_usable:
            return self._client, self._health
        self._waiting += 1
        if self._waiting == 1:
            self._wanted.set()
        try:
            async with asyncio.timeout_at(deadline):
                while self._owner is not None and not self._is_closing:
                    if self._client is not None and self._health.is_usable:
                        return self._client, self._health
                    await self._news.wait()
        except TimeoutError:
            reason = self._failure or "it does not answer"
            raise ToolServerError(self._name, f"is not connected: {self._address.label}: {reason}") from None
        finally:
            self._waiting -= 1
        raise ToolServerError(self._name, "is closed")

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # The owner: the library's client must be entered and left by one task.

    async def _own(self) -> None:
        pause = _SHORTEST_PAUSE
        loop = asyncio.get_running_loop()
        try:
            while not self._is_closing:
                began = loop.time()
                was_up = await self._connect_and_hold()
                if self._is_closing or (self._settings.required and not self._first_try.is_set()):
                    return
                self._complain(was_up)
                self._first_try.set()
                if was_up and loop.time() - began > _LONGEST_PAUSE:
                    pause = _SHORTEST_PAUSE
                # A call that needs the server doesn't wait for the pause to end.
                pause = _SHORTEST_PAUSE if await self._rest(pause) else min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._first_try.set()

    async def _rest(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.5, 1.0)):
                await self._wanted.wait()
        was_wanted = self._wanted.is_set()
        self._wanted.clear()
        return was_wanted

    async def _connect_and_hold(self) -> bool:
        """One connection from its beginning to its end. Gives whether it came up; ``_failure`` is why it ended."""
        modes, self._modes = self._modes, _BOTH_MODES
        try:
            async with asyncio.timeout(self._settings.timeout) as self._limit:
                if self._verify is None and self._settings.transport != "stdio":
                    # It reads files.
                    self._verify = await asyncio.to_thread(httpx2.create_ssl_context)
                for mode in modes:
                    self._health = Health()
                    try:
                        await self._hold(mode, self._health)
                        break
                    except Exception as error:
                        cause = leaf_of(error)
                        hung_up = isinstance(cause, MCPError) and cause.code == CONNECTION_CLOSED
                        # Some that know the old handshake alone hang up on whatever else comes first.
                        if self._health.is_up or not hung_up or mode == modes[-1]:
                            raise
        except Exception as error:
            self._failure = why_not_connected(leaf_of(error), self._health, self._settings, self._address.secrets)
        else:
            self._failure = self._health.lost
        finally:
            self._limit = None
        return self._health.is_up

    async def _hold(self, mode: Mode, health: Health) -> None:
        async with open_client(
            self._address, self._settings, health, mode, self._verify, self._log_error_line
        ) as client:
            try:
                tools = await self._errands.within(self._settings.timeout, list_tools(client))
                assert self._limit is not None
                self._limit.reschedule(None)
                health.is_up = True
                if not is_modern(client):
                    self._modes = ("legacy",)
                self._rejoice(tools)
                self._client = client
                self._first_try.set()
                self._tell()
                await self._watch(client, health)
            finally:
                self._client = None
                health.has_ended = True
                if self._is_closing and health.lost is None:
                    asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, health.sever)
                else:
                    health.sever()

    async def _watch(self, client: Client, health: Health) -> None:
        """Stay until the connection is lost or not needed any more."""
        followers = (
            self._errands.start(follow_changes(client, health)),
            self._errands.start(self._list_again(client, health)),
        )
        try:
            while health.lost is None and not self._is_closing:
                try:
                    async with asyncio.timeout(self._settings.sse_read_timeout / 2):
                        await health.news.wait()
                except TimeoutError:
                    # So that no stream is silent for longer than it may be, and a server that vanished is missed.
                    health.is_doubted = True
                health.news.clear()
                if health.is_doubted:
                    await self._settle(client, health)
        finally:
            for follower in followers:
                follower.cancel()

    async def _settle(self, client: Client, health: Health) -> None:
        try:
            is_there = await self._errands.within(min(_PING_SECONDS, self._settings.timeout), answers(client))
        except TimeoutError:
            health.lose("it does not answer")
        except ConnectionAbortedError:
            # We leave.
            return
        else:
            if is_there:
                health.is_doubted = False
            else:
                health.lose(health.noticed or "it does not answer")
        self._tell()

    async def _list_again(self, client: Client, health: Health) -> None:
        """List the tools whenever they have changed."""
        while True:
            await health.tools_changed.wait()
            health.tools_changed.clear()
            try:
                self._on_tools(await self._errands.within(self._settings.timeout, list_tools(client)))
            except TimeoutError:
                health.doubt("it did not list its tools")
            except (MCPError, ValueError) as error:
                _log.debug("MCP server %r: its tools can't be listed: %s", self._name, type(error).__name__)

    # What is said about it.

    def _rejoice(self, tools: Sequence[Tool]) -> None:
        self._on_tools(tools)
        if self._failure is not None:
            _log.info("MCP server %r: connected, %d tools", self._name, len(tools))
        self._has_complained = False

    def _complain(self, was_up: bool) -> None:
        label, reason = self._address.label, self._failure
        if was_up:
            _log.warning("MCP server %r: connection lost: %s: %s", self._name, label, reason)
        elif not self._has_complained:
            self._has_complained = True
            _log.warning("MCP server %r: not connected, trying on: %s: %s", self._name, label, reason)
        else:
            _log.debug("MCP server %r: not connected, trying on: %s: %s", self._name, label, reason)

    def _log_error_line(self, line: str) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("MCP server %r: stderr: %s", self._name, self._address.secrets.scrub(line))


def _is_of_connection(error: Exception, health: Health) -> bool:
    if isinstance(error, ConnectionAbortedError) or health.lost is not None:
        return True
    return isinstance(error, MCPError) and error.code == CONNECTION_CLOSED
