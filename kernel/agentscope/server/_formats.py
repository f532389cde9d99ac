"""The three forms of an answer: NDJSON, server-sent events, and one JSON document."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
from aiohttp import web

from agentscope.message import Msg
from agentscope.server._errors import ApiError


def encode_line(msg: Msg) -> tuple[bytes, int]:
    """A message as a JSON object without a line break, and its size. Every form is made of these."""
    line = orjson.dumps(msg.to_dict())
    return line, len(line)


@dataclass(frozen=True)
class StreamFormat:
    """How lines become a stream.

    ``lines`` frames some, ``trailer`` the last one, which says whether the invocation failed. Both take the number of
    the first line they are given, None where lines can't be asked for again.
    """

    content_type: str
    lines: Callable[[Sequence[bytes], int | None], bytes]
    trailer: Callable[[bytes, bool, int | None], bytes]
    keepalive: bytes


def _ndjson(lines: Sequence[bytes], first: int | None) -> bytes:
    return b"\n".join(lines) + b"\n" if lines else b""


def _ndjson_trailer(line: bytes, failed: bool, number: int | None) -> bytes:
    return line + b"\n"


def _events(lines: Sequence[bytes], first: int | None) -> bytes:
    if first is None:
        return b"".join([b"data: %b\n\n" % line for line in lines])
    return b"".join([b"id: %d\ndata: %b\n\n" % (number, line) for number, line in enumerate(lines, first)])


def _event_trailer(line: bytes, failed: bool, number: int | None) -> bytes:
    event = b"event: %b\ndata: %b\n\n" % (b"error" if failed else b"done", line)
    return event if number is None else b"id: %d\n%b" % (number, event)


NDJSON = StreamFormat("application/x-ndjson; charset=utf-8", _ndjson, _ndjson_trailer, b"\n")
SSE = StreamFormat("text/event-stream; charset=utf-8", _events, _event_trailer, b": keep-alive\n\n")


def document(messages: Sequence[bytes], metadata: bytes, request_id: str, invocation_id: str) -> web.Response:
    """An answer that is no stream."""
    return web.Response(
        body=b'{"messages":[%b],"metadata":%b}' % (b",".join(messages), metadata),
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Request-Id": request_id, "X-Invocation-Id": invocation_id},
    )


def choose_format(request: web.Request) -> StreamFormat | None:
    """The form that the client asks for; None means one JSON document."""
    stream = request.query.get("stream")
    if stream not in {None, "true", "false"}:
        raise ApiError(400, "INVALID_REQUEST", "the query parameter stream must be true or false")
    if stream == "false":
        return None
    accepted = request.headers.get("Accept")
    if accepted is None or accepted == "*/*":
        return NDJSON
    return _best(accepted, stream == "true")


def _best(accepted: str, must_stream: bool) -> StreamFormat | None:
    forms: dict[str, StreamFormat | None] = {"application/x-ndjson": NDJSON, "text/event-stream": SSE}
    if not must_stream:
        forms["application/json"] = None
    # The wildcards come last: they choose only where the client names no form of ours.
    best, weight = "", 0.0
    for part in accepted.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((_number(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        if media_type in forms and quality > weight:
            best, weight = media_type, quality
    return forms[best] if best else NDJSON


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
