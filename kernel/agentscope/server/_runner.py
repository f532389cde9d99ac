"""Running the application as a process of its own: signals, and an orderly end."""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

from aiohttp import web

from agentscope.runtime import Runtime, Service
from agentscope.server._app import create_app
from agentscope.server._connections import KEEPALIVE_SECONDS, Server
from agentscope.server._keys import SERVICE
from agentscope.server._protocol import worded
from agentscope.server._signals import Stop, interrupting, stop_signals
from agentscope.server._sockets import address_of, refuse_connections, until_empty
from agentscope.server._worker import Worker

_log = logging.getLogger("agentscope.server")

_LINGERING_SECONDS = 2.0
"""How long what is left of a refused body is read, so that its client sees the answer."""

_CONNECTION_SECONDS = 5.0
"""After the drain: how long a slow client may take to read the end of its answer."""

_CANCEL_SECONDS = 0.1

_BACKLOG = 1024
"""How many connections may wait to be accepted. A burst past it is made to try again a second later."""

_ACCEPTED_AT_ONCE = 32

_BLOCKED_SECONDS = 12.0
"""How long something that closes may block the event loop; what only waits is stopped before."""

RESTART_STATUS: Final = 75
"""What supervisors take as "start me again": ``EX_TEMPFAIL`` of ``sysexits.h``."""

_OTHERS_SECONDS = 15.0
"""How much longer than ``server.shutdown_timeout`` a worker waits for the drain of the others."""


class ServerRunner(web.AppRunner):
    """An ``AppRunner`` for production, to be used in its place.

    It cancels the handler of a client that left, and words broken HTTP as the API does. ``cleanup`` lets what runs
    finish first, within ``server.shutdown_timeout``; meanwhile connections are accepted, and told that the server
    isn't ready.
    """

    def __init__(self, app: web.Application) -> None:
        super().__init__(
            app,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            # aiohttp would decompress before anything is known of a request, and of those refused as well.
            auto_decompress=False,
            # A handler that still runs when `cleanup` has waited for its connection is cancelled almost at once.
            shutdown_timeout=_CANCEL_SECONDS,
        )
        self._drained = False

    async def drain(self) -> None:
        """Take no new invocation, and let those that run finish; once."""
        if self._drained:
            return
        self._drained = True
        if isinstance(self.server, Server):
            self.server.expect_end()
        await self.app.shutdown()

    async def shutdown(self) -> None:
        """Run the application's ``on_shutdown``, which drains the runtime, unless ``drain`` did."""
        await self.drain()

    async def cleanup(self) -> None:
        """Drain, end every connection when its last answer is given, and close everything."""
        if isinstance(self.server, Server):
            await self.drain()
            for site in self.sites:
                await site.stop()
            await self.server.end(_CONNECTION_SECONDS)
        await super().cleanup()

    async def _make_server(self) -> web.Server:
        try:
            server = await super()._make_server()
        except BaseException:
            # aiohttp's clean-up would pass over mounted applications that had started before the one that could not.
            self.app.on_cleanup.freeze()
            raise
        service = self.app.get(SERVICE)

        def tell(code: str) -> None:
            if service is not None:
                service.runtime.telemetry.error_sent(code)

        return Server(
            worded(server.request_handler, tell),
            limit=sys.maxsize if service is None else service.runtime.settings.server.max_connections,
            tell=tell,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            # What AppRunner was given for its protocols: there is no other way to give them a protocol of ours.
            **server._kwargs,  # pyright: ignore[reportPrivateUsage]
        )


async def serve(
    service: Service | Runtime, sock: socket.socket, on_ready: Callable[[str], None], *, worker: Worker | None = None
) -> int:
    """Serve a runtime on a bound socket until SIGTERM or SIGINT, then drain and stop in order; SIGHUP reloads it.

    Return the exit status of the process: 0, or 75 (``EX_TEMPFAIL``) when the platform asks for a restart.

    ``on_ready`` is called with the address once requests are answered. A second signal cancels what still runs and
    lets what closes have a second, a third ends the process. With ``worker`` the socket is shared with other
    processes. The socket is closed at the end, and takes nobody any more, whoever else may hold it. For the main
    thread alone.

    Raises ``UserError`` when the project can't start, and what did not close.
    """
    if isinstance(service, Runtime):
        service = Service(service)
    settings = service.runtime.settings.server
    async with AsyncExitStack() as stack:
        stack.enter_context(sock)
        stop = stack.enter_context(stop_signals())
        await stack.enter_async_context(_hurrying(stop, service))
        instance = service.instance
        instance.on_restart, stop.on_hangup = stop.restart, service.reload_soon
        if worker is not None:
            instance.on_restart, instance.on_reload = partial(worker.tell, "restart"), partial(worker.tell, "reload")
            worker.on_reload, stop.on_hangup = service.reload_soon, instance.on_reload
            await stack.enter_async_context(worker.connected(stop))
        runner = ServerRunner(create_app(service))
        try:
            if not await _unless(stop.asked, runner.setup()):
                return RESTART_STATUS if stop.restarts else 0
            site = web.SockSite(runner, sock, backlog=_ACCEPTED_AT_ONCE)
            await site.start()
            # Now the kernel's queue alone: asyncio accepts as many at a time as it is told, and logs as often when
            # there are no descriptors left.
            sock.listen(_BACKLOG)
            if worker is None or worker.index == 0:
                _warn_if_open(service.runtime, settings.host)
                service.checks.append(partial(_warn_if_opened, service, settings.host))
            on_ready(address_of(sock))
            await stop.asked.wait()
            stop.on_hangup = None
            _log.info("stopping%s", _what_runs(service))
            if worker is not None:
                await stack.enter_async_context(_leaving(site, worker))
            if not await _unless(stop.hurried, runner.drain()):
                await service.drain(0.0)
            if worker is None or await worker.may_leave(settings.shutdown_timeout + _OTHERS_SECONDS):
                refuse_connections(sock)
                await until_empty(sock)
        finally:
            with interrupting(_BLOCKED_SECONDS):
                try:
                    await runner.cleanup()
                except ExceptionGroup as failed:
                    if not stop.restarts:
                        raise
                    # Whoever starts it again has to know.
                    _log.exception("stopped, but %s", failed.message)
    return RESTART_STATUS if stop.restarts else 0


@asynccontextmanager
async def _hurrying(stop: Stop, service: Service) -> AsyncGenerator[None]:
    """Hand on to the service that there is no time any more."""

    async def hurry() -> None:
        await stop.hurried.wait()
        service.hurry()

    hurrying = asyncio.create_task(hurry())
    try:
        yield
    finally:
        hurrying.cancel()
        await asyncio.wait([hurrying])


@asynccontextmanager
async def _leaving(site: web.BaseSite, worker: Worker) -> AsyncGenerator[None]:
    """Take no new connection from when others do."""
    worker.tell("stopping")

    async def leave() -> None:
        await worker.others_serve.wait()
        await site.stop()

    leaving = asyncio.create_task(leave())
    try:
        yield
    finally:
        leaving.cancel()
        await asyncio.wait([leaving])


def _what_runs(service: Service) -> str:
    count = service.running
    what = "1 invocation has" if count == 1 else f"{count} invocations have"
    return f": {what} {service.runtime.settings.server.shutdown_timeout:g} seconds to finish" if count else ""


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Do the work and return True; when ``stop`` comes first, cancel the work and return False."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        finished = working.done()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait([working, stopping])
    if finished:
        working.result()
    elif not working.cancelled() and (error := working.exception()) is not None:
        _log.error("failed while it was stopped", exc_info=error)
    return finished


def _warn_if_opened(service: Service, host: str, successor: Runtime) -> None:
    # It was said already of one that was open before.
    if service.runtime.container.authenticator() is not None:
        _warn_if_open(successor, host)


def _warn_if_open(runtime: Runtime, host: str) -> None:
    if runtime.container.authenticator() is not None:
        return
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        _log.warning(
            "listening on %s without authentication: anyone who reaches this port can use the app; "
            "bind to 127.0.0.1, set server.auth, or put an authenticating proxy in front",
            host or "every address",
        )
