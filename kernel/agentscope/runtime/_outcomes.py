"""How an invocation ended, in the codes of the HTTP API."""

import asyncio
from typing import Final

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
)
from agentscope.model import ModelError

_CODES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (SessionBusyError, "SESSION_BUSY"),
    (ForbiddenError, "FORBIDDEN"),
    (OverloadedError, "OVERLOADED"),
    (InvocationCancelledError, "CANCELLED"),
    (asyncio.CancelledError, "CANCELLED"),
    (InvocationTimeoutError, "TIMEOUT"),
    (ModelError, "MODEL_ERROR"),
    (SessionStoreError, "NOT_READY"),
    (RuntimeNotReadyError, "NOT_READY"),
    (AuthenticatorUnavailableError, "NOT_READY"),
)


def outcome_of(error: BaseException | None) -> str:
    """The code of the error that a client is told of, or "ok"."""
    match error:
        case None:
            return "ok"
        case SessionConflictError() if error.expected is not None or error.lease_lost:
            return "SESSION_BUSY"
        case SessionNotFoundError(is_foreign=True):
            return "NOT_FOUND"
        case _:
            return next((code for kind, code in _CODES if isinstance(error, kind)), "APP_ERROR")
