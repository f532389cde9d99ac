"""The operations of the OpenAPI document that answer messages."""

from typing import Any, Final

from agentscope.server._openapi_errors import (
    INVALID_JSON,
    INVALID_REQUEST,
    KEY_USED,
    NOT_FOUND,
    NOT_READY,
    OF_INVOCATIONS,
    PAYLOAD_TOO_LARGE,
    TOO_SLOW,
    UNSUPPORTED_MEDIA_TYPE,
)
from agentscope.server._openapi_parts import Operation, header, in_header, in_query, parameter, schema
from agentscope.server._openapi_sessions import OF_ONE_SESSION
from agentscope.server._schemas import IDEMPOTENCY_KEY_PATTERN, LARGEST_NUMBER, LONGEST_IDEMPOTENCY_KEY

_MESSAGE: Final[dict[str, Any]] = {
    "id": "01JD5Z3W0N7Q8R9S",
    "name": "assistant",
    "role": "assistant",
    "content": "Hello!",
    "metadata": {},
    "timestamp": "2026-11-22T21:40:02.481Z",
}
_METADATA: Final = {"done": True, "usage": {"input_tokens": 1, "output_tokens": 2}}
_LINE: Final = (
    '{"id":"01JD5Z3W0N7Q8R9S","name":"assistant","role":"assistant","content":"Hello!","metadata":{},'
    '"timestamp":"2026-11-22T21:40:02.481Z"}'
)
_TRAILER: Final = '{"metadata":{"done":true,"usage":{"input_tokens":1,"output_tokens":2}}}'

# OpenAPI 3.1 has no words for a stream of JSON: what a line holds is said by an extension.
_LINES: Final = {"anyOf": [schema("Message"), schema("CompletedTrailer"), schema("FailedTrailer")]}

_FORMS: Final = """\
Each line is a JSON object: a message of the app, sent as soon as the app yields it. The last one, the trailer, says
that the answer is complete and what it used, or how it failed. An answer without a trailer was cut. While the app is
silent, an empty line (in events a comment) is sent every `server.keepalive_interval` seconds: skip it.

The form is chosen by `Accept`: `application/x-ndjson`, which is also what `*/*` and no `Accept` mean,
`text/event-stream`, or `application/json` for one document at the end, which `stream=false` asks for as well."""

_INVOKE: Final = f"""\
The app answers a message in a session. Messages of one session are answered one after the other.

{_FORMS}

What fails before the first line has a status of its own; what fails later is told by the trailer."""

_RESUME: Final = f"""\
The lines of an answer after line `after`, and those that are still to come, from any process of the session store. The
lines of `/invoke` are numbered from 1, empty ones not counted; the trailer is the last. They are kept for
`server.replay_ttl` seconds after the end.

{_FORMS}

An invocation that failed before its first line is answered with its status again."""

_STREAM: Final = in_query(
    "stream", "`false` asks for one document, `true` for a stream whatever `Accept` says", {"type": "boolean"}
)
_IDEMPOTENCY_KEY: Final = in_header(
    "Idempotency-Key",
    "a request with a key that its session has seen gets the first one's stream, and no second turn; "
    "the same key with another body is refused",
    {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_IDEMPOTENCY_KEY,
        "pattern": IDEMPOTENCY_KEY_PATTERN,
    },
)
_NUMBER: Final = {"type": "integer", "format": "int64", "minimum": 0, "maximum": LARGEST_NUMBER}


def invoke_operation(*, replay: bool) -> Operation:
    """``POST /invoke``."""
    return Operation(
        method="post",
        path="/invoke",
        name="invoke",
        summary="Answer a message",
        description=_INVOKE,
        tag="invocations",
        parameters=[_STREAM, parameter("X-Request-Id"), *([_IDEMPOTENCY_KEY] if replay else [])],
        body={"required": True, "content": {"application/json": {"schema": schema("InvokeBody"), "example": _BODY}}},
        success={200: {**_answered(), "links": _links(replay=replay)}},
        refusals=[
            INVALID_JSON,
            INVALID_REQUEST,
            NOT_FOUND,
            TOO_SLOW,
            PAYLOAD_TOO_LARGE,
            UNSUPPORTED_MEDIA_TYPE,
            *OF_INVOCATIONS,
            *([KEY_USED] if replay else []),
            NOT_READY,
        ],
    )


def resume_operation() -> Operation:
    """``GET /invocations/{invocation_id}/stream``."""
    where = {
        "name": "invocation_id",
        "in": "path",
        "required": True,
        "description": "the `X-Invocation-Id` of the answer of `/invoke`",
        "schema": {"type": "string", "minLength": 1},
    }
    last_event = "what a browser's `EventSource` sends when it connects again; it is used instead of `after`"
    return Operation(
        method="get",
        path="/invocations/{invocation_id}/stream",
        name="resumeInvocation",
        summary="Read an answer again, or on",
        description=_RESUME,
        tag="invocations",
        parameters=[
            where,
            in_query("after", "the number of the last line that is known; 0 for all lines", {**_NUMBER, "default": 0}),
            _STREAM,
            in_header("Last-Event-ID", last_event, _NUMBER),
            parameter("X-Request-Id"),
        ],
        success={
            200: _answered(),
            204: {
                "description": "No line is left after that one",
                "headers": {"X-Request-Id": header("X-Request-Id")},
            },
        },
        refusals=[INVALID_REQUEST, NOT_FOUND, *OF_INVOCATIONS, NOT_READY],
    )


def _links(*, replay: bool) -> dict[str, Any]:
    session = {"session_id": "$request.body#/session_id"}
    links: dict[str, Any] = {name: {"operationId": name, "parameters": session} for name in OF_ONE_SESSION}
    if replay:
        invocation = {"invocation_id": "$response.header.X-Invocation-Id"}
        links["resumeInvocation"] = {"operationId": "resumeInvocation", "parameters": invocation}
    return links


def _answered() -> dict[str, Any]:
    names = ("X-Request-Id", "X-Invocation-Id", "Cache-Control", "X-Accel-Buffering")
    return {
        "description": "The answer, or as much of it as there is before it fails",
        "headers": {name: header(name) for name in names},
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "one JSON object a line"},
                "x-item-schema": _LINES,
                "example": f"{_LINE}\n{_TRAILER}\n",
            },
            "text/event-stream": {
                "schema": {"type": "string", "description": "the same objects as the data of server-sent events"},
                "x-item-schema": _LINES,
                "example": f"data: {_LINE}\n\nevent: done\ndata: {_TRAILER}\n\n",
            },
            "application/json": {
                "schema": schema("Answer"),
                "example": {"messages": [_MESSAGE], "metadata": _METADATA},
            },
        },
    }


_BODY: Final = {"session_id": "s1", "message": {"name": "user", "role": "user", "content": "Hello"}}
