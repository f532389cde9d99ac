"""The connection to one server: one task opens it, holds it and opens it again; whoever calls uses it meanwhile."""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context

from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, Tool

from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp._address import Address
from agentscope_adapters.mcp._client import Mode, answers, follow_changes, is_modern, list_tools, open_client
from agentscope_adapters.mcp._errands import Errands
from agentscope_adapters.mcp._failures import leaf_of, why_not_connected
from agentscope_adapters.mcp._health import Health
from agentscope_adapters.mcp._http import load_certificates

_log = logging.getLogger("agentscope.mcp")

_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_LONGEST_PAUSE_OF_A_CALL = 1.0
_PING_SECONDS = 2.0
_FAREWELL_SECONDS = 2.0
_OWNER_SECONDS = 8.0
_BOTH_MODES: tuple[Mode, ...] = ("auto", "legacy")


class Connection:
    """The connection to the server ``name``. ``on_tools`` is told its tools, again whenever they may have changed.

    ``errands`` do what is asked of the server; ``failure`` is why the last connection ended or could not be opened.
    """

    def __init__(
        self, name: str, address: Address, settings: McpServerSettings, on_tools: Callable[[Sequence[Tool]], None]
    ) -> None:
        self.errands = Errands()
        self.failure: str | None = None
        self._name = name
        self._address = address
        self._settings = settings
        self._on_tools = on_tools
        self._owner: asyncio.Task[None] | None = None
        self._is_closing = False
        # What is open now.
        self._client: Client | None = None
        self._health = Health()
        self._limit: asyncio.Timeout | None = None
        # What the next one begins with.
        self._modes = _BOTH_MODES
        self._verify: ssl.SSLContext | None = None
        self._has_complained = False
        # Who waits for it.
        self._first_try = asyncio.Event()
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiting = 0

    @property
    def is_up(self) -> bool:
        """Whether it is open."""
        return self._client is not None and self._health.lost is None

    async def open(self, patience: float | None) -> None:
        """Start, and wait until the first try is over, or for ``patience`` seconds."""
        if self._owner is None:
            self._owner = asyncio.get_running_loop().create_task(self._own(), context=Context())
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._first_try.wait()

    async def aclose(self) -> None:
        """Leave, end what was started, and stop trying. That goes on when this is cancelled."""
        self._is_closing = True
        self._wanted.set()
        self._health.news.set()
        self._tell()
        # The server is told of each call that is given up.
        self.errands.cancel()
        if self._limit is not None and self._limit.when() is not None and not self._limit.expired():
            self._limit.reschedule(0)
        if self._owner is not None:
            _, late = await asyncio.wait((self._owner,), timeout=_OWNER_SECONDS)
            for owner in late:
                _log.error("MCP server %r: the connection would not end", self._name)
                owner.cancel()
        await self.errands.aclose()

    async def usable(self, deadline: float) -> tuple[Client, Health]:
        """The open connection, or the next one.

        Raises ``TimeoutError`` when there is none by ``deadline``, in the event loop's time, and
        ``ConnectionAbortedError`` when there will be none.
        """
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
        finally:
            self._waiting -= 1
        raise ConnectionAbortedError

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _own(self) -> None:
        """Connect, again and again. One task does, for the library's client must be left by whoever entered it."""
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
                pause = _SHORTEST_PAUSE if await self._rest(pause) else min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._first_try.set()

    async def _rest(self, seconds: float) -> bool:
        """Wait before the next try. Gives whether a call that needs the server cut that short."""
        if self._waiting:
            seconds = min(seconds, _LONGEST_PAUSE_OF_A_CALL)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.5, 1.0)):
                await self._wanted.wait()
        was_wanted = self._wanted.is_set()
        self._wanted.clear()
        return was_wanted

    async def _connect_and_hold(self) -> bool:
        """One connection from its beginning to its end. Gives whether it came up."""
        modes, self._modes = self._modes, _BOTH_MODES
        try:
            async with asyncio.timeout(self._settings.timeout) as self._limit:
                if self._verify is None and self._settings.transport != "stdio":
                    self._verify = await load_certificates()
                for mode in modes:
                    self._health = Health()
                    try:
                        await self._hold(mode, self._health)
                        break
                    except Exception as error:
                        if mode == modes[-1] or not self._has_hung_up(leaf_of(error)):
                            raise
        except Exception as error:
            why = why_not_connected(leaf_of(error), self._health, self._settings, self._address.secrets)
            self.failure = self._health.lost or why
        else:
            self.failure = self._health.lost
        finally:
            self._limit = None
        return self._health.is_up

    def _has_hung_up(self, error: Exception) -> bool:
        """Whether the server ended the conversation: some that know the old handshake alone do when asked for more."""
        if self._health.is_up or self._settings.transport == "streamable_http":
            return False
        return isinstance(error, MCPError) and error.code == CONNECTION_CLOSED

    async def _hold(self, mode: Mode, health: Health) -> None:
        loop = asyncio.get_running_loop()
        # Nobody waits for a server that has nothing to say, not even to take leave of it.
        farewell: asyncio.TimerHandle | None = None
        settings, verify = self._settings, self._verify
        try:
            async with open_client(self._address, settings, health, mode, verify, self._log_error_line) as client:
                try:
                    tools = await self.errands.within(settings.timeout, list_tools(client))
                    self._come_up(client, health, tools)
                    await self._watch(client, health)
                finally:
                    self._client = None
                    health.has_ended = True
                    if self._is_closing and health.lost is None:
                        farewell = loop.call_later(_FAREWELL_SECONDS, health.sever)
                    else:
                        health.sever()
        finally:
            if farewell is not None:
                farewell.cancel()

    def _come_up(self, client: Client, health: Health, tools: Sequence[Tool]) -> None:
        assert self._limit is not None
        self._limit.reschedule(None)
        if not is_modern(client):
            self._modes = ("legacy",)
        self._on_tools(tools)
        if self.failure is not None:
            _log.info("MCP server %r: connected, %d tools", self._name, len(tools))
        self._has_complained = False
        self._client = client
        health.is_up = True
        health.noticed = None
        self._first_try.set()
        self._tell()

    async def _watch(self, client: Client, health: Health) -> None:
        """Stay until the connection is lost, or not needed any more."""
        followers = (
            self.errands.start(follow_changes(client, health)),
            self.errands.start(self._list_again(client, health)),
        )
        try:
            while health.lost is None and not self._is_closing:
                try:
                    async with asyncio.timeout(self._settings.sse_read_timeout / 2):
                        await health.news.wait()
                except TimeoutError:
                    # So no stream is silent for longer than it may be, and a server that vanished is missed.
                    health.is_doubted = True
                health.news.clear()
                if health.is_doubted and health.lost is None:
                    await self._settle(client, health)
        finally:
            for follower in followers:
                follower.cancel()

    async def _settle(self, client: Client, health: Health) -> None:
        """Ask the server whether it is there: who is merely slow with one call answers."""
        try:
            is_there = await self.errands.within(min(_PING_SECONDS, self._settings.timeout), answers(client))
        except TimeoutError:
            health.lose("it does not answer")
        except ConnectionAbortedError:
            # We leave.
            return
        else:
            if is_there:
                health.is_doubted = False
                health.noticed = None
            else:
                health.lose(health.noticed or "it does not answer")
        self._tell()

    async def _list_again(self, client: Client, health: Health) -> None:
        """List the tools whenever they have changed."""
        while True:
            await health.tools_changed.wait()
            health.tools_changed.clear()
            try:
                self._on_tools(await self.errands.within(self._settings.timeout, list_tools(client)))
            except TimeoutError:
                health.doubt("it did not list its tools")
            except (MCPError, ValueError) as error:
                _log.debug("MCP server %r: its tools can't be listed: %s", self._name, type(error).__name__)

    def _complain(self, was_up: bool) -> None:
        label, reason = self._address.label, self.failure
        if was_up:
            _log.warning("MCP server %r: connection lost: %s: %s", self._name, label, reason)
            return
        # The first of several tries that fail, not each.
        level = logging.DEBUG if self._has_complained else logging.WARNING
        _log.log(level, "MCP server %r: not connected, trying on: %s: %s", self._name, label, reason)
        self._has_complained = True

    def _log_error_line(self, line: str) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("MCP server %r: stderr: %s", self._name, self._address.secrets.scrub(line))
