"""Running the application as a process of its own: a port, signals, and an orderly end."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError
from aiohttp.web_protocol import RequestHandler

from agentscope.errors import UserError
from agentscope.message import new_id
from agentscope.runtime import Runtime
from agentscope.server._app import create_app
from agentscope.server._errors import ApiError

_log = logging.getLogger("agentscope.server")

_CONNECTION_SECONDS = 5.0
"""After the drain: how long a slow client may take to read the end of its answer."""


class ServerRunner(web.AppRunner):
    """An ``AppRunner`` that cancels the handler of a client that left, and words broken HTTP as the API does."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(app, handler_cancellation=True, access_log=None, shutdown_timeout=_CONNECTION_SECONDS)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            # What AppRunner was given for its protocols: there is no other way to give them a protocol of ours.
            **server._kwargs,  # pyright: ignore[reportPrivateUsage]
        )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(RequestHandler):
    __slots__ = ()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a failure; what a client sent wrong is no failure, and no client may fill the log with tracebacks."""
        error = kw.get("exc_info")
        if isinstance(error, HttpProcessingError | PayloadEncodingError | web.RequestPayloadError):
            _log.info("broken HTTP from a client: %s", type(error).__name__)
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what isn't HTTP, which no middleware sees."""
        if request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        request_id = new_id()
        if status >= 500:
            _log.error("the server failed, request %s", request_id, exc_info=exc)
            error = ApiError(status, "APP_ERROR", "the server failed; its log has the details")
        else:
            _log.info("broken HTTP from a client: %s, request %s", type(exc).__name__, request_id)
            error = ApiError(status, "INVALID_REQUEST", "the request is not valid HTTP")
        error.closes = True
        return error.response(request_id)


async def serve(runtime: Runtime, on_ready: Callable[[str], None]) -> None:
    """Serve a runtime until SIGTERM or SIGINT, then drain and stop in order.

    ``on_ready`` is called with the address once requests are answered. A second signal ends the drain at once.
    Raises ``UserError`` when the port can't be had or the project can't start.
    """
    settings = runtime.settings.server
    stop = asyncio.Event()
    with listening_socket(settings.host, settings.port) as sock, _signals(stop):
        runner = ServerRunner(create_app(runtime))
        try:
            if not await _unless(stop, runner.setup()):
                return
            await web.SockSite(runner, sock).start()
            _warn_if_open(settings.host)
            on_ready(_address(sock))
            await stop.wait()
            stop.clear()
            _log.info("stopping; what still runs has %g seconds to finish", settings.shutdown_timeout)
            if not await _unless(stop, runtime.drain(settings.shutdown_timeout)):
                await runtime.drain()
        finally:
            await runner.cleanup()


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that a port in use is known before anything is opened.

    Raises ``UserError`` when it can't be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "it is no host name"
        raise UserError(f"server.host {host[:100]!r} is no address of this machine: {reason}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise UserError(_why_not_bound(host, port, error)) from error
    return sock


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"port {port} needs privileges that this process does not have: choose one above 1023 with --port"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what uses it, or choose another with --port"
    return f"can't listen on {host} port {port}: {error.strerror}"


@contextmanager
def _signals(stop: asyncio.Event) -> Generator[None, None, None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def release() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    def ask_to_stop() -> None:
        if stop.is_set():
            # What the last signal asked for hangs: the next one ends the process as if nobody listened.
            release()
        stop.set()

    for number in numbers:
        loop.add_signal_handler(number, ask_to_stop)
    try:
        yield
    finally:
        release()


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


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _warn_if_open(host: str) -> None:
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        _log.warning(
            "listening on %s without authentication: anyone who reaches this port can use the app; "
            "bind to 127.0.0.1 or put an authenticating proxy in front",
            host or "every address",
        )
