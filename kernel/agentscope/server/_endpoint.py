"""What goes around every handler: a name for the request, who calls, and the shape of every failure."""

import re
from functools import partial

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from agentscope.message import new_id
from agentscope.server._authentication import authenticate
from agentscope.server._errors import refusal
from agentscope.server._keys import CLAIMS, CORS, REQUEST_ID, RUNTIME, SERVICE
from agentscope.server._protocol import Protocol
from agentscope.telemetry import current_request_id

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def endpoint(handler: Handler, *, is_open: bool) -> Handler:
    """The handler with all that goes around it. ``is_open`` lets everyone call it, without any token."""
    return partial(_respond, handler=handler, is_open=is_open)


async def _respond(request: web.Request, handler: Handler, *, is_open: bool) -> web.StreamResponse:
    """Name the request, see who calls, give every failure the API's shape, and say when a connection is to end."""
    app = request.app
    given = request.headers.get("X-Request-Id")
    request_id = given if given is not None and _SAFE_ID.fullmatch(given) else new_id()
    request[REQUEST_ID] = request_id
    runtime = request[RUNTIME] = app[SERVICE].runtime
    named = current_request_id.set(request_id)
    runtime.hold()
    try:
        if request.method == hdrs.METH_OPTIONS and CORS in app:
            # Browsers send no token with it.
            preflight = app[CORS].preflight(request)
            if preflight is not None:
                return preflight
        if not is_open:
            # Before anything else is done or said: who may not call learns not even which paths there are.
            claims = await authenticate(request)
            if claims is not None:
                request[CLAIMS] = claims
        response = await handler(request)
    except ConnectionError:
        # The client is gone: there is nobody to tell. What an app raises never comes here as it is.
        raise
    except Exception as error:
        told = refusal(error, request_id, debug=runtime.settings.server.debug)
        runtime.telemetry.error_sent(told.code)
        response = told.response(request_id)
    finally:
        runtime.let_go()
        # The task goes on to the connection's next request.
        current_request_id.reset(named)
    end_connection(request, response)
    return response


def end_connection(request: web.Request, response: web.StreamResponse) -> None:
    """Once the service takes nothing new, say so with the last answer on each connection."""
    if response.prepared or request.app[SERVICE].runtime.state == "running":
        # A client that was not told, for the headers are sent, uses its connection once more, and is told then.
        return
    protocol = request.protocol
    if not isinstance(protocol, Protocol) or not protocol.has_more:
        response.force_close()
