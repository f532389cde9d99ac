"""The aiohttp application of a runtime."""

import re
import time
from collections.abc import AsyncIterator

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from agentscope.errors import UserError
from agentscope.message import new_id
from agentscope.runtime import Runtime
from agentscope.server._authentication import authenticate
from agentscope.server._cors import Cors
from agentscope.server._detached import Detached
from agentscope.server._errors import refusal
from agentscope.server._health import health, ready
from agentscope.server._invoke import invoke
from agentscope.server._keys import CLAIMS, CORS, DETACHED, REQUEST_ID, RUNTIME, STARTED
from agentscope.server._lifetime import Lifetime, end_connection
from agentscope.server._metrics import metrics
from agentscope.server._observed import observed
from agentscope.server._openapi import OpenApi
from agentscope.server._replay import resume
from agentscope.server._sessions import cancel_session, delete_session, list_sessions, show_messages, show_session
from agentscope.telemetry import current_request_id

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def create_app(runtime: Runtime) -> web.Application:
    """An application that serves a runtime, and starts and stops it unless it is started already.

    Run it with ``ServerRunner``, or at least with ``handler_cancellation=True``: a client that leaves then cancels the
    app at once, instead of at the next line it can't be sent.
    """
    app = web.Application(middlewares=[_errors])
    app[RUNTIME] = runtime
    app[STARTED] = time.monotonic()
    app[DETACHED] = Detached()
    app.cleanup_ctx.append(_close_detached)
    lifetime = Lifetime(runtime)
    app.cleanup_ctx.append(lifetime.run)
    app.cleanup_ctx.append(_require_who_calls)
    app.on_shutdown.append(lifetime.drain)
    if runtime.settings.server.cors_origins:
        app[CORS] = Cors(runtime.settings.server.cors_origins)
        app.on_response_prepare.append(app[CORS].allow)
    app.router.add_post("/invoke", observed(invoke))
    app.router.add_get("/invocations/{invocation_id}/stream", resume, allow_head=False)
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    if runtime.settings.server.metrics:
        app.router.add_get("/metrics", metrics)
    app.router.add_get("/openapi.json", OpenApi().answer)
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


async def _require_who_calls(app: web.Application) -> AsyncIterator[None]:
    runtime = app[RUNTIME]
    claim = runtime.settings.session.owner_claim
    if claim is not None and runtime.container.authenticator() is None:
        raise UserError(
            f"session.owner_claim: sessions belong to the claim {claim!r} of who calls, and nobody is asked who they "
            "are: set server.auth"
        )
    yield


async def _close_detached(app: web.Application) -> AsyncIterator[None]:
    yield
    # After the runtime, which ends every invocation that it has.
    await app[DETACHED].aclose()


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, see who calls, give every failure the API's shape, and say when a connection is to end."""
    given = request.headers.get("X-Request-Id")
    request_id = given if given is not None and _SAFE_ID.fullmatch(given) else new_id()
    request[REQUEST_ID] = request_id
    named = current_request_id.set(request_id)
    try:
        if request.method == hdrs.METH_OPTIONS and CORS in request.app:
            # Browsers send no token with it.
            preflight = request.app[CORS].preflight(request)
            if preflight is not None:
                return preflight
        # Before anything else is done or said: who may not call learns not even which paths there are.
        claims = await authenticate(request)
        if claims is not None:
            request[CLAIMS] = claims
        response = await handler(request)
    except ConnectionError:
        # The client is gone: there is nobody to tell. What an app raises never comes here as it is.
        raise
    except Exception as error:
        runtime = request.app[RUNTIME]
        told = refusal(error, request_id, debug=runtime.settings.server.debug)
        runtime.telemetry.error_sent(told.code)
        response = told.response(request_id)
    finally:
        # The task goes on to the connection's next request.
        current_request_id.reset(named)
    end_connection(request, response)
    return response
