"""Every failure as the one error shape of the HTTP API: a code, a status and a message a client may see."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil, isfinite
from typing import Any, Final

import orjson
from aiohttp import web

from agentscope.errors import (
    AuthenticatorUnavailableError,
    ForbiddenError,
    InvocationCancelledError,
    InvocationTimeoutError,
    OverloadedError,
    RuntimeNotReadyError,
    SessionBusyError,
    SessionConflictError,
    SessionNotFoundError,
    SessionStoreError,
    UnauthorizedError,
)
from agentscope.model import ModelError, ModelRateLimitError

_log = logging.getLogger("agentscope.server")

_HTTP_CODES = {
    400: "INVALID_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
}

STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "SESSION_BUSY": 409,
    "CANCELLED": 409,
    "OVERLOADED": 429,
    "APP_ERROR": 500,
    "MODEL_ERROR": 502,
    "NOT_READY": 503,
    "TIMEOUT": 504,
}
"""The status that an invocation fails with before its first line, by the code of its trailer."""

_CODE_OF: Final[Mapping[type[BaseException], str]] = {
    ForbiddenError: "FORBIDDEN",
    SessionBusyError: "SESSION_BUSY",
    SessionNotFoundError: "NOT_FOUND",
}
"""Errors whose own text is what the client is told."""


@dataclass(eq=False)
class ApiError(Exception):
    """A failure in the API's words. ``details`` lists each invalid field as ``{"path": …, "message": …}``."""

    status: int
    code: str
    message: str
    details: Sequence[Mapping[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    request_id: str | None = None
    """That of the request which failed so, when this one repeats it; None when that is this one."""
    closes: bool = False
    """Whether the connection can't be used again: what is left of the request on it can't be told from the next."""

    def body(self, request_id: str) -> dict[str, Any]:
        """The ``error`` object of a response or a trailer."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "request_id": self.request_id or request_id,
        }
        if self.details:
            error["details"] = list(self.details)
        return error

    def response(self, request_id: str) -> web.Response:
        """The answer to a request that failed before anything was sent."""
        response = web.Response(
            status=self.status,
            body=orjson.dumps({"error": self.body(request_id)}),
            content_type="application/json",
            headers={**self.headers, "X-Request-Id": request_id, "Cache-Control": "no-store"},
        )
        if self.closes:
            response.force_close()
        return response


def refusal(error: Exception, request_id: str, *, debug: bool) -> ApiError:
    """What a client is told when its request was not even begun."""
    match error:
        case ApiError():
            return error
        case web.HTTPException():
            return _from_http(error)
        case UnauthorizedError():
            return ApiError(401, "UNAUTHORIZED", _text(error), headers={"WWW-Authenticate": error.challenge})
        case ForbiddenError():
            return ApiError(403, "FORBIDDEN", _text(error))
        case AuthenticatorUnavailableError():
            # Whoever knows why has logged it, once and not for every request.
            message = "who calls can't be checked now; try again"
            return ApiError(503, "NOT_READY", message, headers=_retry_after(error.retry_after))
        case RuntimeNotReadyError():
            return ApiError(503, "NOT_READY", "the server is not ready; try again", headers=_retry_after(1))
        case _:
            return app_failure(error, request_id, debug=debug)


def app_failure(
    error: BaseException, request_id: str, *, debug: bool, about: Mapping[str, str] | None = None
) -> ApiError:
    """What a client is told about an invocation that failed. The log gets the traceback when nobody expected it.

    ``about`` are further fields for the log's records.
    """
    match error:
        case ForbiddenError() | SessionBusyError() | SessionNotFoundError(is_foreign=True):
            code = next(code for kind, code in _CODE_OF.items() if isinstance(error, kind))
            return ApiError(STATUS_OF_CODE[code], code, str(error))
        case SessionConflictError() if error.expected is not None or error.lease_lost:
            # Another writer was first. Without `expected` the app has not loaded the session: its own mistake, below.
            what = "was not kept while the server stood still" if error.lease_lost else "was changed elsewhere"
            return ApiError(409, "SESSION_BUSY", f"session {error.session_id!r} {what}; try again")
        case SessionStoreError():
            # Its text may name the database: that is for the log alone.
            _log.error("the session store failed: %s, request %s", _text(error), request_id, extra=about)
            message = "the session store does not answer; try again"
            return ApiError(503, "NOT_READY", message, headers=_retry_after(1))
        case OverloadedError():
            return ApiError(429, "OVERLOADED", str(error), headers=_retry_after(error.retry_after))
        case InvocationCancelledError(by_request=True):
            return ApiError(409, "CANCELLED", str(error))
        case InvocationCancelledError():
            return ApiError(503, "CANCELLED", str(error), headers=_retry_after(1))
        case InvocationTimeoutError():
            return ApiError(504, "TIMEOUT", f"the invocation was cancelled: {error}")
        case ModelError():
            _log.error("%s, request %s", _text(error), request_id, extra=about)
            message = _text(error) if debug else f"model {error.slot!r}: {error.summary}"
            wait = error.retry_after if isinstance(error, ModelRateLimitError) else None
            return ApiError(502, "MODEL_ERROR", message, headers={} if wait is None else _retry_after(wait))
        case _:
            _log.error("the app failed, request %s", request_id, exc_info=error, extra=about)
            message = f"{type(error).__name__}: {_text(error)}" if debug else "the app failed; its log has the details"
            return ApiError(500, "APP_ERROR", message)


def _text(error: BaseException) -> str:
    """The text of an exception that may be anybody's: one that can't be written out must not fail the answer."""
    try:
        return str(error).encode("utf-8", "replace").decode()
    except Exception:
        return f"its own text failed ({type(error).__name__})"


def _from_http(error: web.HTTPException) -> ApiError:
    code = _HTTP_CODES.get(error.status, "INVALID_REQUEST")
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    message = "there is no such path" if error.status == 404 else HTTPStatus(error.status).description or error.reason
    return ApiError(error.status, code, message, headers=headers)


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, ceil(seconds)))} if isfinite(seconds) else {}
