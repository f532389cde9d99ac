"""``GET /metrics``: for Prometheus, when ``server.metrics`` is on."""

import asyncio

from aiohttp import web

from agentscope.server._errors import ApiError
from agentscope.server._keys import REQUEST_ID, RUNTIME


async def metrics(request: web.Request) -> web.Response:
    """All metrics of the runtime, and with several workers of all of them."""
    exposition = request[RUNTIME].exposition
    if exposition is None:
        raise ApiError(404, "NOT_FOUND", "the runtime keeps no metrics")
    # With several workers it reads their files.
    body, content_type = await asyncio.to_thread(exposition.expose, request.headers.get("Accept", ""))
    headers = {"Content-Type": content_type, "Cache-Control": "no-store", "X-Request-Id": request[REQUEST_ID]}
    return web.Response(body=body, headers=headers)
