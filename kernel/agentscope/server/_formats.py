"""The three forms of an answer: NDJSON, server-sent events, and one JSON document."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from agentscope.message import Msg
from agentscope.server._errors import ApiError


@dataclass(frozen=True)
class StreamFormat:
    """How messages become bytes. ``encode`` gives a message with its size, ``trailer`` the last piece."""

    content_type: str
    encode: Callable[[Msg], tuple[bytes, int]]
    trailer: Callable[[Mapping[str, Any]], bytes]
    keepalive: bytes


def _ndjson(msg: Msg) -> tuple[bytes, int]:
    line = orjson.dumps(msg.to_dict(), option=orjson.OPT_APPEND_NEWLINE)
    return line, len(line)


def _ndjson_trailer(trailer: Mapping[str, Any]) -> bytes:
    return orjson.dumps(trailer, option=orjson.OPT_APPEND_NEWLINE)


def _event(msg: Msg) -> tuple[bytes, int]:
    event = b"data: %b\n\n" % orjson.dumps(msg.to_dict())
    return event, len(event)


def _event_trailer(trailer: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (b"error" if "error" in trailer else b"done", orjson.dumps(trailer))


def encode_plain(msg: Msg) -> tuple[bytes, int]:
    """A message as one JSON object, for the document that holds them all."""
    message = orjson.dumps(msg.to_dict())
    return message, len(message)


NDJSON = StreamFormat("application/x-ndjson; charset=utf-8", _ndjson, _ndjson_trailer, b"\n")
SSE = StreamFormat("text/event-stream; charset=utf-8", _event, _event_trailer, b": keep-alive\n\n")


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
