"""The aiohttp application of a runtime."""

import re
import time
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

from agentscope.message import new_id
from agentscope.runtime import Runtime
from agentscope.server._errors import refusal
from agentscope.server._health import health, ready
from agentscope.server._invoke import invoke
from agentscope.server._keys import REQUEST_ID, RUNTIME, STARTED
from agentscope.server._sessions import cancel_session, delete_session, list_sessions, show_messages, show_session

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def create_app(runtime: Runtime) -> web.Application:
    """An application that serves a runtime, and starts and stops it unless it is started already.

    Run it with ``handler_cancellation=True``: a client that leaves then cancels the app at once, instead of at the
    next line it can't be sent.
    """
    app = web.Application(middlewares=[_errors])
    app[RUNTIME] = runtime
    app[STARTED] = time.monotonic()
    app.cleanup_ctx.append(_run)
    app.router.add_post("/invoke", invoke)
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    _add_sessions(app.router)
    return app


def _add_sessions(router: web.UrlDispatcher) -> None:
    # The path is matched before `%2F` is decoded, so that an id may hold a slash; an empty id is told what is wrong.
    one = "/sessions/{session_id:[^/]*}"
    router.add_get("/sessions", list_sessions)
    router.add_get(one, show_session)
    router.add_delete(one, delete_session)
    router.add_get(f"{one}/messages", show_messages)
    router.add_post(f"{one}/cancel", cancel_session)


async def _run(app: web.Application) -> AsyncIterator[None]:
    runtime = app[RUNTIME]
    if runtime.is_initialized:
        yield
        return
    async with runtime:
        yield


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, and give every failure the API's shape."""
    given = request.headers.get("X-Request-Id")
    request_id = given if given is not None and _SAFE_ID.fullmatch(given) else new_id()
    request[REQUEST_ID] = request_id
    try:
        return await handler(request)
    except ConnectionError:
        # The client is gone: there is nobody to tell. What an app raises never comes here as it is.
        raise
    except Exception as error:
        debug = request.app[RUNTIME].settings.server.debug
        return refusal(error, request_id, debug=debug).response(request_id)
