"""The aiohttp application of a service, and its routes in an application of somebody else's."""

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from agentscope.errors import UserError
from agentscope.runtime import Runtime, Service
from agentscope.server._cors import Cors
from agentscope.server._detached import Detached
from agentscope.server._endpoint import endpoint
from agentscope.server._health import health, ready
from agentscope.server._invoke import invoke
from agentscope.server._keys import CORS, DETACHED, REQUEST_ID, SERVICE, STARTED
from agentscope.server._metrics import metrics
from agentscope.server._observed import observed
from agentscope.server._openapi import OpenApi
from agentscope.server._replay import resume
from agentscope.server._sessions import cancel_session, delete_session, list_sessions, show_messages, show_session


class _Route(NamedTuple):
    """``is_open`` lets everyone call it, without any token: a probe has none."""

    method: str
    path: str
    handler: Handler
    is_open: bool = False


# The path is matched before `%2F` is decoded, so that an id may hold a slash; an empty id is told what is wrong.
_SESSION: Final = "/sessions/{session_id:[^/]*}"


def create_app(service: Service | Runtime) -> web.Application:
    """An application that serves a runtime, and starts and stops it unless it is started already.

    Run it with ``ServerRunner``, or at least with ``handler_cancellation=True``: a client that leaves then cancels the
    app at once, instead of at the next line it can't be sent. It may be mounted in another application with
    ``add_subapp``, under any prefix; several may be. It takes no more routes: those of yours go into an application
    that it is mounted in, or that ``setup`` is given.
    """
    app = web.Application()
    # What matches no other route is answered by one too. A middleware would be told of it, but costs every request.
    # Without a path a mounted application is asked for its prefix alone.
    rest = [_Route(hdrs.METH_ANY, path, _no_route) for path in ("", r"/{path:[\s\S]*}")]
    _add_routes(app, [*_add(app, service), *rest])
    app.on_startup.insert(0, partial(_require_no_more_routes, count=len(app.router.routes())))
    return app


def setup(app: web.Application, service: Service | Runtime, *, prefix: str = "") -> Service:
    """Add a runtime's routes to an application of the host's, and its life to the application's.

    The paths begin with ``prefix``. The host's middlewares run around them; what the host answers itself stays as it
    is. The service that is returned is ``app[SERVICE]``: one application has one; mount a second with
    ``add_subapp(prefix, create_app(…))``. Raises ``ValueError`` for an application that has one, and for a prefix that
    does not begin with a slash, or ends with one.
    """
    if not isinstance(app, web.Application):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
        raise TypeError(f"{app!r} is no application: setup(app, runtime) takes a web.Application first")
    if SERVICE in app:
        raise ValueError("this application has a service already: app.add_subapp('/other', create_app(runtime))")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ValueError(f"prefix {prefix!r}: begin it with a slash, and end it without one")
    routes = _add(app, service)
    if CORS in app:
        # What matches no route is the host's to answer: a browser asks these before it sends a request.
        paths = dict.fromkeys(route.path for route in routes)
        routes += [_Route(hdrs.METH_OPTIONS, path, _no_such_method) for path in paths]
    _add_routes(app, routes, prefix)
    return app[SERVICE]


def _add(app: web.Application, service: Service | Runtime) -> list[_Route]:
    """Add all but the routes, which are returned."""
    if isinstance(service, Runtime):
        service = Service(service)
    if not isinstance(service, Service):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
        raise TypeError(f"{service!r} is no runtime: give Runtime.from_project(folder), or a Service of one")
    service.checks.append(_require_who_calls)
    app[SERVICE] = service
    app[STARTED] = time.monotonic()
    app[DETACHED] = Detached()
    app.cleanup_ctx.append(_close_detached)
    app.cleanup_ctx.append(_live)
    app.on_shutdown.append(_drain)
    server = service.runtime.settings.server
    if server.cors_origins:
        app[CORS] = Cors(server.cors_origins)
        app.on_response_prepare.append(_allow_pages)
    return _routes(metered=server.metrics)


def _add_routes(app: web.Application, routes: Iterable[_Route], prefix: str = "") -> None:
    for route in routes:
        app.router.add_route(route.method, prefix + route.path, endpoint(route.handler, is_open=route.is_open))


def _routes(*, metered: bool) -> list[_Route]:
    return [
        _Route("POST", "/invoke", observed(invoke)),
        _Route("GET", "/invocations/{invocation_id}/stream", resume),
        *_get("/health", health, is_open=True),
        *_get("/ready", ready, is_open=True),
        *(_get("/metrics", metrics) if metered else ()),
        *_get("/openapi.json", OpenApi().answer),
        *_get("/sessions", list_sessions),
        *_get(_SESSION, show_session),
        _Route("DELETE", _SESSION, delete_session),
        *_get(f"{_SESSION}/messages", show_messages),
        _Route("POST", f"{_SESSION}/cancel", cancel_session),
    ]


def _get(path: str, handler: Handler, *, is_open: bool = False) -> Iterator[_Route]:
    for method in (hdrs.METH_HEAD, hdrs.METH_GET):
        yield _Route(method, path, handler, is_open)


def _require_who_calls(runtime: Runtime) -> None:
    claim = runtime.settings.session.owner_claim
    if claim is not None and runtime.container.authenticator() is None:
        raise UserError(
            f"session.owner_claim: sessions belong to the claim {claim!r} of who calls, and nobody is asked who they "
            "are: set server.auth"
        )


async def _live(app: web.Application) -> AsyncIterator[None]:
    async with app[SERVICE]:
        yield


async def _drain(app: web.Application) -> None:
    await app[SERVICE].drain(app[SERVICE].runtime.settings.server.shutdown_timeout)


async def _close_detached(app: web.Application) -> AsyncIterator[None]:
    yield
    # After the runtime, which ends every invocation that it has.
    await app[DETACHED].aclose()


async def _allow_pages(request: web.Request, response: web.StreamResponse) -> None:
    # A request without an id is the host's own.
    if REQUEST_ID in request:
        await request.app[CORS].allow(request, response)


async def _no_such_method(request: web.Request) -> web.StreamResponse:
    raise web.HTTPMethodNotAllowed(request.method, [])


async def _require_no_more_routes(app: web.Application, *, count: int) -> None:
    # Who looks at the settings takes each path of it to be behind `server.auth`.
    if len(app.router.routes()) > count:
        raise RuntimeError(
            "a route was added to the application of create_app: add it to the one that it is mounted in, "
            "or use setup(your_application, runtime)"
        )


async def _no_route(request: web.Request) -> web.StreamResponse:
    """Tell a path that isn't there from one that is, by another method."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        allowed |= (await resource.resolve(request))[1]
    # Those that lead here.
    allowed.discard(hdrs.METH_ANY)
    raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound
