"""``GET /openapi.json``: the API of this server, with what is switched on in it."""

import asyncio

from aiohttp import web

from agentscope.server._keys import REQUEST_ID, RUNTIME

_Switches = tuple[bool, bool, bool]


class OpenApi:
    """Answers with the document, which is made when it is first asked for."""

    def __init__(self) -> None:
        self._documents: dict[_Switches, bytes] = {}
        self._making = asyncio.Lock()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer with the document."""
        runtime = request[RUNTIME]
        # A reload may switch something on or off.
        server = runtime.settings.server
        switches = (runtime.container.authenticator() is not None, bool(server.replay_ttl), server.metrics)
        async with self._making:
            if switches not in self._documents:
                prefix = request.path.removesuffix("/openapi.json")
                # In a thread: what describes models takes a moment to be imported.
                made = await asyncio.to_thread(_make, switches, runtime.project.name or "app", prefix)
                self._documents[switches] = made
        headers = {"Cache-Control": "no-store", "X-Request-Id": request[REQUEST_ID]}
        return web.Response(body=self._documents[switches], content_type="application/json", headers=headers)


def _make(switches: _Switches, title: str, prefix: str) -> bytes:
    # Nothing but this needs them, and most servers are never asked.
    from agentscope.server._openapi_document import Features, encode_document

    auth, replay, metrics = switches
    return encode_document(Features(auth=auth, replay=replay, metrics=metrics), title=title, prefix=prefix)
