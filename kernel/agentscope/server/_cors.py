"""``server.cors_origins``: which pages of other origins a browser lets read the answers (the Fetch standard)."""

from collections.abc import Collection
from typing import Final

from aiohttp import hdrs, web

_METHODS: Final = "GET, POST, DELETE"
_HEADERS: Final = "Accept, Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id, traceparent"
_EXPOSED: Final = "X-Request-Id, X-Invocation-Id, Retry-After"
_PREFLIGHT_SECONDS: Final = "600"
_ANY_ORIGIN: Final = "*"


class Cors:
    """Lets the pages of some origins in. They send no cookies, for there are none: a token is a header."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks before it sends a request; None for any other request."""
        origin = self._allowed(request)
        if origin is None or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
            return None
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
        }
        return web.Response(status=204, headers=headers)

    async def allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say in an answer, before its headers are sent, that the page may read it."""
        # Also where the origin is not allowed: a cache must not give this answer to a page that is.
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = self._allowed(request)
        if origin is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED

    def _allowed(self, request: web.Request) -> str | None:
        origin = request.headers.get(hdrs.ORIGIN)
        return origin if origin is not None and not self._origins.isdisjoint((origin, _ANY_ORIGIN)) else None
