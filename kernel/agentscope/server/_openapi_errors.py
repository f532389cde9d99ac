"""The refusals of the HTTP API: each with its status, when it comes, and what it looks like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Refusal:
    """A code with its status. ``when`` is for the table of codes, ``message`` an example of its text."""

    code: str
    status: int
    when: str
    message: str
    details: Sequence[dict[str, str]] = ()


INVALID_JSON: Final = Refusal(
    "INVALID_JSON", 400, "the body is not JSON in UTF-8", "the body is not JSON in UTF-8: unexpected end of data"
)
INVALID_REQUEST: Final = Refusal(
    "INVALID_REQUEST",
    400,
    "a field, a parameter or a header is wrong, and `details` says which; or the request is not HTTP",
    "the request is not valid: message.role, metdata",
    (
        {"path": "message.role", "message": "Input should be 'user', 'assistant' or 'system'"},
        {"path": "metdata", "message": "unknown field"},
    ),
)
UNAUTHORIZED: Final = Refusal(
    "UNAUTHORIZED",
    401,
    "there is no token, or none that is valid; see `WWW-Authenticate`",
    "no bearer token: send `Authorization: Bearer …`",
)
FORBIDDEN: Final = Refusal(
    "FORBIDDEN",
    403,
    "the caller is known, and may not do this",
    "sessions belong to the claim 'sub', which this caller does not have",
)
NOT_FOUND: Final = Refusal(
    "NOT_FOUND",
    404,
    "there is no such path, session, invocation or page, or it is another's",
    "session 's1' does not exist",
)
METHOD_NOT_ALLOWED: Final = Refusal(
    "METHOD_NOT_ALLOWED",
    405,
    "the path is there, but not with this method; see `Allow`",
    "Specified method is invalid for this resource",
)
TOO_SLOW: Final = Refusal(
    "INVALID_REQUEST", 408, "the body did not come in time", "the body did not come within 120 seconds"
)
SESSION_BUSY: Final = Refusal(
    "SESSION_BUSY",
    409,
    "another invocation of the session took too long, or a save met a conflict: try again",
    "session 's1' is running another invocation",
)
CANCELLED: Final = Refusal(
    "CANCELLED",
    409,
    "the invocation was cancelled by a request, or the process that ran it is gone",
    "the invocation was cancelled by a request",
)
KEY_USED: Final = Refusal(
    "INVALID_REQUEST",
    409,
    "the `Idempotency-Key` was used with another body",
    "the Idempotency-Key was used with another request: take a new key for a new message",
    ({"path": "Idempotency-Key", "message": "was used with another request"},),
)
PAYLOAD_TOO_LARGE: Final = Refusal(
    "PAYLOAD_TOO_LARGE",
    413,
    "the body is larger than `server.max_body_bytes`",
    "the body is larger than 10485760 bytes",
)
UNSUPPORTED_MEDIA_TYPE: Final = Refusal(
    "UNSUPPORTED_MEDIA_TYPE",
    415,
    "the body is not `application/json`",
    "the body must be JSON: send `Content-Type: application/json`",
)
OVERLOADED: Final = Refusal(
    "OVERLOADED",
    429,
    "no place is left; see `Retry-After`",
    "the server is at its limit of concurrent and waiting invocations",
)
APP_ERROR: Final = Refusal(
    "APP_ERROR",
    500,
    "the app raised; the log has the traceback under the same request id",
    "the app failed; its log has the details",
)
MODEL_ERROR: Final = Refusal(
    "MODEL_ERROR", 502, "the model's vendor failed", "model 'main': the vendor refused the API key"
)
STOPPING: Final = Refusal(
    "CANCELLED",
    503,
    "the server is stopping, and a running invocation was cut; see `Retry-After`",
    "the server stopped before the invocation had ended",
)
NOT_READY: Final = Refusal(
    "NOT_READY",
    503,
    "the server is starting or stopping, or the session store does not answer; see `Retry-After`",
    "the server is not ready; try again",
)
TIMEOUT: Final = Refusal(
    "TIMEOUT", 504, "`server.request_timeout` is over", "the invocation was cancelled: it took longer than 60 seconds"
)

REFUSALS: Final = (
    INVALID_JSON,
    INVALID_REQUEST,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    TOO_SLOW,
    SESSION_BUSY,
    CANCELLED,
    KEY_USED,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    OVERLOADED,
    APP_ERROR,
    MODEL_ERROR,
    STOPPING,
    NOT_READY,
    TIMEOUT,
)
"""All of them, by their status."""

CODES: Final = tuple(dict.fromkeys(refusal.code for refusal in REFUSALS))

OF_INVOCATIONS: Final = (SESSION_BUSY, CANCELLED, OVERLOADED, APP_ERROR, MODEL_ERROR, STOPPING, TIMEOUT)
"""What an invocation can fail with. After the first line it is in the trailer instead."""

_STATUSES: Final = {
    400: "The request is wrong",
    401: "There is no valid token",
    403: "The caller may not do this",
    404: "It is not there",
    408: "The body came too slowly",
    409: "Something is in the way",
    413: "The body is too large",
    415: "The body is of another media type",
    429: "No place is left",
    500: "The app failed",
    502: "The model's vendor failed",
    503: "The server can't answer now",
    504: "The invocation took too long",
}
_REQUEST_ID: Final[dict[str, Any]] = {"$ref": "#/components/headers/X-Request-Id"}
_RETRY_AFTER: Final[dict[str, Any]] = {"$ref": "#/components/headers/Retry-After"}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": {"$ref": "#/components/headers/WWW-Authenticate"}},
    429: {"Retry-After": _RETRY_AFTER},
    502: {"Retry-After": {"description": "when the vendor says", "schema": {"type": "integer", "minimum": 1}}},
    503: {"Retry-After": _RETRY_AFTER},
}


def responses_of(refusals: Sequence[Refusal]) -> dict[str, Any]:
    """The ``responses`` of an operation that can fail so, by their status."""
    statuses = sorted({refusal.status for refusal in refusals})
    return {
        str(status): _response(status, [each for each in refusals if each.status == status]) for status in statuses
    }


def _response(status: int, refusals: Sequence[Refusal]) -> dict[str, Any]:
    codes = list(dict.fromkeys(refusal.code for refusal in refusals))
    schema = {
        "allOf": [
            {"$ref": "#/components/schemas/ErrorBody"},
            {"properties": {"error": {"properties": {"code": {"enum": codes}}}}},
        ]
    }
    return {
        "description": f"{_STATUSES[status]}: {', '.join(f'`{code}`' for code in codes)}",
        "headers": {"X-Request-Id": _REQUEST_ID, **_HEADERS.get(status, {})},
        "content": {
            "application/json": {
                "schema": schema,
                "examples": {refusal.code: {"value": {"error": _example(refusal)}} for refusal in refusals},
            }
        },
    }


def _example(refusal: Refusal) -> dict[str, Any]:
    example = {"code": refusal.code, "message": refusal.message, "request_id": "01JD5Z3W0N7Q8R9S"}
    return {**example, "details": list(refusal.details)} if refusal.details else example
