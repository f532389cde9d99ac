"""``GET /invocations/{id}/stream`` and ``Idempotency-Key``: reading an answer again, from any process of the store."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from math import inf
from typing import Any, Final

import orjson
from aiohttp import web

from agentscope.errors import SessionNotFoundError
from agentscope.server._answer import failed_trailer
from agentscope.server._errors import STATUS_OF_CODE, ApiError
from agentscope.server._formats import StreamFormat, choose_format, document
from agentscope.server._keys import CLAIMS, REQUEST_ID, RUNTIME
from agentscope.server._request import InvokeRequest
from agentscope.server._stream import Stream
from agentscope.session import InvocationRecord, InvocationStore, LinePage, Recording, follow_invocation

_INVOCATION_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


async def open_recording(
    request: web.Request, wanted: InvokeRequest, invocation_id: str
) -> Recording | InvocationRecord:
    """Begin to keep the lines of a new invocation; the record of the one that its key began, if there is one.

    Raises ``ApiError`` for a key that was used with another request.
    """
    runtime = request[RUNTIME]
    owner = runtime.ownership.owner(request.get(CLAIMS))
    await runtime.ownership.require(wanted.session_id, owner)
    key, fingerprint = wanted.idempotency_key, wanted.fingerprint
    record = InvocationRecord(invocation_id, wanted.session_id, owner, key, fingerprint)
    opened = await runtime.container.recorder().open(record)
    if isinstance(opened, InvocationRecord):
        if opened.owner != owner:
            raise SessionNotFoundError(wanted.session_id, is_foreign=True)
        if opened.fingerprint != fingerprint:
            raise ApiError(
                409,
                "INVALID_REQUEST",
                "the Idempotency-Key was used with another request: take a new key for a new message",
                [{"path": "Idempotency-Key", "message": "was used with another request"}],
            )
    return opened


async def resume(request: web.Request) -> web.StreamResponse:
    """The lines of an invocation after the one that is named, and those that are still to come."""
    runtime = request[RUNTIME]
    form = choose_format(request)
    invocation_id = request.match_info["invocation_id"]
    after = _after(request)
    unknown = ApiError(404, "NOT_FOUND", "no invocation of that id is kept")
    store: InvocationStore | None = runtime.container.invocations()
    owner = runtime.ownership.owner(request.get(CLAIMS))
    if not runtime.settings.server.replay_ttl or store is None or not _INVOCATION_ID.fullmatch(invocation_id):
        raise unknown
    record = await store.find_invocation(invocation_id)
    if record is None or (owner is not None and record.owner != owner):
        raise unknown
    first = await store.read_lines(invocation_id, after)
    if first is None:
        raise unknown
    if not first.lines and first.state == "ended":
        # Nothing is left to read. A browser's EventSource asks again and again until it is told so.
        return web.Response(status=204, headers={"Cache-Control": "no-store", "X-Request-Id": request[REQUEST_ID]})
    return await _go_on(request, record, form, first, after)


async def repeat(
    request: web.Request, record: InvocationRecord, form: StreamFormat | None
) -> web.StreamResponse | None:
    """What an invocation answers to the request that began it: the status waits for the first line.

    None when it was refused meanwhile, and has done nothing: the request is to be begun again.
    """
    store: InvocationStore = request[RUNTIME].container.invocations()
    # No sign of life before the first line: it may wait for its session, and still be refused.
    async with aclosing(follow_invocation(store, record.invocation_id, 0, inf)) as pages:
        first = await anext(pages, None)
    return None if first is None else await _go_on(request, record, form, first, 0)


async def _go_on(
    request: web.Request, record: InvocationRecord, form: StreamFormat | None, first: LinePage, after: int
) -> web.StreamResponse:
    """Answer with the page ``first``, of what comes after line ``after``, and with all that follows."""
    runtime = request[RUNTIME]
    store: InvocationStore = runtime.container.invocations()
    patience = runtime.settings.server.keepalive_interval
    if after == 0 and first.state == "ended" and len(first.lines) == 1:
        _raise_stored(first.lines[0])
    if after == 0 and first.state == "abandoned" and not first.lines:
        _raise_stored(_trailer_of([], first.state, request))
    async with aclosing(_pages(store, record, first, after, patience)) as pages:
        if form is None:
            return await _document_again(request, record, pages)
        return await _stream_again(request, record, form, pages, after)


async def _stream_again(
    request: web.Request,
    record: InvocationRecord,
    form: StreamFormat,
    pages: AsyncIterator[LinePage],
    after: int,
) -> web.StreamResponse:
    async with Stream(request, form, record.invocation_id, after + 1) as stream:
        async for page in pages:
            lines = [line.encode() for line in page.lines]
            if page.state == "running":
                await stream.write(lines)
            else:
                trailer = _trailer_of(lines, page.state, request)
                # One that is made here is no line of the answer: who asks for what comes after must not miss any.
                is_kept = page.state == "ended"
                await stream.end(lines, trailer, failed=_error_of(trailer) is not None, is_kept=is_kept)
                return stream.response
        # It went while it was read: its session was deleted, or it grew too large to be kept.
        gone = ApiError(404, "NOT_FOUND", "the rest of the answer is not kept")
        trailer = orjson.dumps(failed_trailer(gone, request[REQUEST_ID]))
        await stream.end([], trailer, failed=True, is_kept=False)
    return stream.response


async def _document_again(
    request: web.Request, record: InvocationRecord, pages: AsyncIterator[LinePage]
) -> web.StreamResponse:
    lines: list[bytes] = []
    state = "gone"
    async for page in pages:
        lines += [line.encode() for line in page.lines]
        state = page.state
    if state == "gone":
        raise ApiError(404, "NOT_FOUND", "no invocation of that id is kept")
    trailer = _trailer_of(lines, state, request)
    _raise_stored(trailer)
    metadata = orjson.dumps(orjson.loads(trailer)["metadata"])
    return document(lines, metadata, request[REQUEST_ID], record.invocation_id)


async def _pages(
    store: InvocationStore, record: InvocationRecord, first: LinePage, after: int, patience: float
) -> AsyncGenerator[LinePage]:
    # Also without a line: the client is told at once that its request is heard.
    yield first
    if first.state == "running":
        after += len(first.lines)
        async with aclosing(follow_invocation(store, record.invocation_id, after, patience)) as rest:
            async for page in rest:
                yield page


def _after(request: web.Request) -> int:
    last, after = request.headers.get("Last-Event-ID"), request.query.get("after", "0")
    wrong = {key: "unknown parameter" for key in request.query if key not in {"after", "stream"}}
    if len(request.query.getall("after", ())) > 1:
        wrong["after"] = "is given more than once"
    for name, value in (("after", after), ("Last-Event-ID", last or "0")):
        if not _NUMBER.fullmatch(value):
            wrong.setdefault(name, "must be the number of a line, 0 for all of them")
    if wrong:
        # The name of a parameter is whatever a client wrote: it may be no text, and of any length.
        named = {key.encode("utf-8", "replace").decode()[:200]: wrong[key] for key in list(wrong)[:20]}
        details = [{"path": path, "message": message} for path, message in named.items()]
        raise ApiError(400, "INVALID_REQUEST", f"the request is not valid: {', '.join(named)}", details)
    # A browser's EventSource keeps its URL when it connects again, and says in the header how far it got.
    return int(last or after)


def _error_of(trailer: bytes | str) -> dict[str, Any] | None:
    error: dict[str, Any] | None = orjson.loads(trailer).get("error")
    return error


def _raise_stored(trailer: bytes | str) -> None:
    """Fail as the invocation did, when it did."""
    error = _error_of(trailer)
    if error is not None:
        status = STATUS_OF_CODE.get(error["code"], 500)
        headers = {"Retry-After": "1"} if status in {429, 503} else {}
        failure = ApiError(status, error["code"], error["message"], error.get("details", ()), headers)
        # The log has its details under the first request's.
        failure.request_id = error["request_id"]
        raise failure


def _trailer_of(lines: list[bytes], state: str, request: web.Request) -> bytes:
    """The trailer, taken from the end of the last lines, or made where none is kept."""
    if state == "ended" and lines:
        return lines.pop()
    if state == "ended":
        failure = ApiError(404, "NOT_FOUND", "the answer ended before the line that was asked for")
    else:
        failure = ApiError(
            503, "CANCELLED", "the rest of the answer is not kept: its process is gone, or could not keep it"
        )
    return orjson.dumps(failed_trailer(failure, request[REQUEST_ID]))
