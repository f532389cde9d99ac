"""``GET /health`` and ``GET /ready``: is the process alive, and should it get requests."""

import time

import orjson
from aiohttp import web

from agentscope import __version__
from agentscope.server._keys import REQUEST_ID, SERVICE, STARTED


async def health(request: web.Request) -> web.Response:
    """Alive as long as the event loop turns."""
    uptime = time.monotonic() - request.app[STARTED]
    return _json(
        request,
        200,
        {
            "status": "healthy",
            "instance_id": request.app[SERVICE].runtime.settings.platform.instance_id,
            "uptime": round(uptime, 1),
            "version": __version__,
        },
    )


async def ready(request: web.Request) -> web.Response:
    """Ready when the runtime takes invocations and everything it needs answers."""
    service = request.app[SERVICE]
    runtime = service.runtime
    if runtime.state != "running":
        return _json(request, 503, {"status": runtime.state, "dependencies": {}})
    states = await runtime.check_dependencies()
    up = "down" not in states.values()
    if service.platform_state is not None:
        states["platform"] = "up" if service.platform_state == "up" else "down, not required"
    document: dict[str, object] = {"status": "ready" if up else "not_ready", "dependencies": states}
    if service.reload_error is not None:
        # It may name folders and databases. Where callers need a token, this one has none.
        is_open = runtime.container.authenticator() is None
        document["reload_error"] = service.reload_error if is_open else "the log says why"
    return _json(request, 200 if up else 503, document)


def _json(request: web.Request, status: int, document: dict[str, object]) -> web.Response:
    headers = {"Cache-Control": "no-store", "X-Request-Id": request[REQUEST_ID]}
    if status == 503:
        headers["Retry-After"] = "1"
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json", headers=headers)
