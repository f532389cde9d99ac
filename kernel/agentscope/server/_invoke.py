"""``POST /invoke``: parse, begin an invocation, write what its pump hands over, write the trailer."""

from typing import Any

import orjson
from aiohttp import web

from agentscope.runtime import Invocation
from agentscope.server._errors import to_api_error
from agentscope.server._formats import StreamFormat, choose_format, encode_plain
from agentscope.server._keys import REQUEST_ID, RUNTIME
from agentscope.server._request import read_invocation


async def invoke(request: web.Request) -> web.StreamResponse:
    """Answer one message."""
    runtime, request_id = request.app[RUNTIME], request[REQUEST_ID]
    form = choose_format(request)
    session_id, msg, metadata = await read_invocation(request)
    invocation = await runtime.begin(
        msg,
        encode_plain if form is None else form.encode,
        session_id=session_id,
        request_id=request_id,
        metadata=metadata,
    )
    try:
        if form is None:
            return await _document(invocation)
        return await _stream(request, invocation, form)
    finally:
        # Also when the client left: this handler is then cancelled, and with it the app.
        await invocation.aclose()


async def _stream(request: web.Request, invocation: Invocation[bytes], form: StreamFormat) -> web.StreamResponse:
    pump, server = invocation.pump, invocation.runtime.settings.server
    lines = await pump.take(server.keepalive_interval)
    if not lines and pump.closed and invocation.error is not None:
        raise invocation.error
    response = web.StreamResponse(
        headers={
            "Content-Type": form.content_type,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "X-Request-Id": invocation.request_id,
        }
    )
    await response.prepare(request)
    while not pump.closed:
        await response.write(b"".join(lines) if lines else form.keepalive)
        lines = await pump.take(server.keepalive_interval)
    await response.write_eof(b"".join(lines) + form.trailer(_trailer(invocation, debug=server.debug)))
    return response


async def _document(invocation: Invocation[bytes]) -> web.Response:
    messages: list[bytes] = []
    while not invocation.pump.closed:
        messages += await invocation.pump.take()
    if invocation.error is not None:
        raise invocation.error
    return web.Response(
        body=b'{"messages":[%b],"metadata":%b}' % (b",".join(messages), orjson.dumps(_metadata(invocation))),
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Request-Id": invocation.request_id},
    )


def _trailer(invocation: Invocation[bytes], *, debug: bool) -> dict[str, Any]:
    if invocation.error is None:
        return {"metadata": _metadata(invocation)}
    error = to_api_error(invocation.error, invocation.request_id, debug=debug)
    return {"error": error.body(invocation.request_id), "metadata": {"done": True, "error": True}}


def _metadata(invocation: Invocation[bytes]) -> dict[str, Any]:
    usage = invocation.usage
    return {"done": True, "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}}
