"""``GET /openapi.json``: the API of this server, with what is switched on in it."""

import asyncio

from aiohttp import web

from agentscope.runtime import Runtime
from agentscope.server._keys import REQUEST_ID, RUNTIME


class OpenApi:
    """Answers with the document, which is made when it is first asked for."""

    def __init__(self) -> None:
        self._document: bytes | None = None
        self._making = asyncio.Lock()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer with the document."""
        if self._document is None:
            async with self._making:
                if self._document is None:
                    prefix = request.path.removesuffix("/openapi.json")
                    # In a thread: what describes models takes a moment to be imported.
                    self._document = await asyncio.to_thread(_make, request.app[RUNTIME], prefix)
        headers = {"Cache-Control": "no-store", "X-Request-Id": request[REQUEST_ID]}
        return web.Response(body=self._document, content_type="application/json", headers=headers)


def _make(runtime: Runtime, prefix: str) -> bytes:
    # Nothing but this needs them, and most servers are never asked.
    from agentscope.server._openapi_document import Features, encode_document

    server = runtime.settings.server
    features = Features(
        auth=runtime.container.authenticator() is not None,
        replay=bool(server.replay_ttl),
        metrics=server.metrics,
    )
    return encode_document(features, title=runtime.project.name or "app", prefix=prefix)
