"""``POST /invoke``: parse, begin an invocation, write what its pump hands over, write the trailer."""

import asyncio
from typing import Final

import orjson
from aiohttp import web

from agentscope.message import new_id
from agentscope.runtime import Invocation, Runtime
from agentscope.server._answer import Answer
from agentscope.server._errors import ApiError
from agentscope.server._formats import StreamFormat, choose_format, document, encode_line
from agentscope.server._keys import CLAIMS, DETACHED, REQUEST_ID, RUNTIME, WATCH
from agentscope.server._replay import open_recording, repeat
from agentscope.server._request import InvokeRequest, read_invocation
from agentscope.server._stream import Stream
from agentscope.session import Recorder, Recording

LARGEST_DOCUMENT: Final = 64 * 1024 * 1024
"""An answer that is no stream is held in memory: this many bytes at most."""


async def invoke(request: web.Request) -> web.StreamResponse:
    """Answer one message."""
    runtime = request[RUNTIME]
    form = choose_format(request)
    wanted = await read_invocation(request)
    invocation_id = new_id()
    recording = None
    while runtime.settings.server.replay_ttl and recording is None:
        opened = await open_recording(request, wanted, invocation_id)
        if isinstance(opened, Recording):
            recording = opened
        elif (response := await repeat(request, opened, form)) is not None:
            return response
    invocation = await _begin(request, wanted, invocation_id, recording)
    return await _answer(request, form, Answer(invocation, recording))


async def _begin(
    request: web.Request, wanted: InvokeRequest, invocation_id: str, recording: Recording | None
) -> Invocation[bytes]:
    runtime = request[RUNTIME]
    try:
        return await runtime.begin(
            wanted.msg,
            encode_line,
            session_id=wanted.session_id,
            request_id=request[REQUEST_ID],
            invocation_id=invocation_id,
            metadata=wanted.metadata,
            identity=request.get(CLAIMS),
            watch=request.get(WATCH),
        )
    except BaseException:
        if recording is not None:
            await asyncio.shield(_recorder(runtime).discard(recording))
        raise


async def _answer(request: web.Request, form: StreamFormat | None, answer: Answer) -> web.StreamResponse:
    # Of the runtime that has opened the recording; the invocation may run on the next one.
    runtime = request[RUNTIME]
    recorder = _recorder(runtime) if answer.is_numbered else None
    goes_on = False
    try:
        return await (_document(answer) if form is None else _stream(request, answer, form))
    except (ConnectionError, asyncio.CancelledError):
        goes_on = runtime.settings.server.on_disconnect == "continue"
        raise
    finally:
        if not answer.is_over:
            # Also when the client left: this handler is then cancelled, and with it the app. On a task of its own,
            # for it may be cancelled a second time, and what has to be kept is to be kept.
            ending = request.app[DETACHED].add(answer, recorder, runtime, goes_on=goes_on)
            if not goes_on:
                await asyncio.shield(ending)


async def _stream(request: web.Request, answer: Answer, form: StreamFormat) -> web.StreamResponse:
    invocation = answer.invocation
    bell = invocation.runtime.keepalives
    lines = await answer.take(bell)
    while not lines and not answer.closed and invocation.waits_for_session:
        # A keep-alive would settle the status, and this may still become a 409.
        lines = await answer.take(bell)
    if not lines and answer.closed:
        _raise_failure(answer)
    stream = Stream(request, form, invocation.invocation_id, first=1 if answer.is_numbered else None)
    async with stream:
        while not answer.closed:
            await stream.write(lines)
            # What is sent is let go of: an idle stream would keep it.
            lines.clear()
            lines = await answer.take(bell)
        if answer.failure is not None:
            invocation.runtime.telemetry.error_sent(answer.failure.code)
        await stream.end(lines, answer.trailer, failed=answer.failure is not None)
    return stream.response


async def _document(answer: Answer) -> web.Response:
    messages: list[bytes] = []
    size = 0
    while not answer.closed:
        waiting = await answer.take()
        messages += waiting
        size += sum(map(len, waiting))
        if size > LARGEST_DOCUMENT:
            raise ApiError(500, "APP_ERROR", f"the answer is larger than {LARGEST_DOCUMENT} bytes: ask for a stream")
    _raise_failure(answer)
    invocation = answer.invocation
    return document(messages, orjson.dumps(answer.metadata), invocation.request_id, invocation.invocation_id)


def _raise_failure(answer: Answer) -> None:
    if answer.failure is not None:
        raise answer.failure


def _recorder(runtime: Runtime) -> Recorder:
    return runtime.container.recorder()
