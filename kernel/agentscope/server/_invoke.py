"""``POST /invoke``: parse, begin an invocation, write what its pump hands over, write the trailer."""

import asyncio
import logging
from typing import Any

import orjson
from aiohttp import HttpVersion11, web

from agentscope.runtime import Invocation
from agentscope.server._errors import ApiError, app_failure
from agentscope.server._formats import StreamFormat, choose_format, encode_plain
from agentscope.server._keys import REQUEST_ID, RUNTIME
from agentscope.server._request import read_invocation

_log = logging.getLogger("agentscope.server")

STALLED_SECONDS = 60.0
"""How long a client may read nothing while there is something to write: it holds its session and a slot."""

LARGEST_DOCUMENT = 64 * 1024 * 1024
"""An answer that is no stream is held in memory: this many bytes at most."""


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
    while not lines and not pump.closed and invocation.waits_for_session:
        # A keep-alive would settle the status, and this may still become a 409.
        lines = await pump.take(server.keepalive_interval)
    if not lines and pump.closed:
        _raise_failure(invocation)
    response = web.StreamResponse(
        headers={
            "Content-Type": form.content_type,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "X-Request-Id": invocation.request_id,
        }
    )
    if request.version < HttpVersion11:
        # Without chunks, only the end of the connection says that the answer is over.
        response.force_close()
    await response.prepare(request)
    try:
        while not pump.closed:
            async with asyncio.timeout(STALLED_SECONDS):
                await response.write(b"".join(lines) if lines else form.keepalive)
            lines = await pump.take(server.keepalive_interval)
        async with asyncio.timeout(STALLED_SECONDS):
            await response.write_eof(b"".join(lines) + form.trailer(_trailer(invocation)))
    except Exception as error:
        # A second response must not follow inside this one. Without its trailer the client knows that it was cut.
        if isinstance(error, TimeoutError):
            _log.warning("the client reads nothing, its connection is cut, request %s", invocation.request_id)
        elif not isinstance(error, ConnectionError):
            _log.exception("the answer was cut short, request %s", invocation.request_id)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError from error
    return response


async def _document(invocation: Invocation[bytes]) -> web.Response:
    messages: list[bytes] = []
    size = 0
    while not invocation.pump.closed:
        waiting = await invocation.pump.take()
        messages += waiting
        size += sum(map(len, waiting))
        if size > LARGEST_DOCUMENT:
            raise ApiError(500, "APP_ERROR", f"the answer is larger than {LARGEST_DOCUMENT} bytes: ask for a stream")
    _raise_failure(invocation)
    return web.Response(
        body=b'{"messages":[%b],"metadata":%b}' % (b",".join(messages), orjson.dumps(_metadata(invocation))),
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Request-Id": invocation.request_id},
    )


def _failure(invocation: Invocation[bytes]) -> ApiError | None:
    if invocation.error is None:
        return None
    debug = invocation.runtime.settings.server.debug
    return app_failure(invocation.error, invocation.request_id, debug=debug)


def _raise_failure(invocation: Invocation[bytes]) -> None:
    failure = _failure(invocation)
    if failure is not None:
        raise failure


def _trailer(invocation: Invocation[bytes]) -> dict[str, Any]:
    failure = _failure(invocation)
    if failure is None:
        return {"metadata": _metadata(invocation)}
    return {"error": failure.body(invocation.request_id), "metadata": {"done": True, "error": True}}


def _metadata(invocation: Invocation[bytes]) -> dict[str, Any]:
    usage = invocation.usage
    return {"done": True, "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}}
