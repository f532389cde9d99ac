"""How a call ended, in the few words that a label may have."""

import asyncio
from collections.abc import Mapping
from typing import Final

from agentscope.model import (
    ModelAuthenticationError,
    ModelBadRequestError,
    ModelConnectionError,
    ModelOverloadedError,
    ModelRateLimitError,
    ModelTimeoutError,
)

_MODEL_OUTCOMES: Final = (
    (ModelAuthenticationError, "authentication"),
    (ModelRateLimitError, "rate_limit"),
    (ModelTimeoutError, "timeout"),
    (ModelOverloadedError, "overloaded"),
    (ModelBadRequestError, "bad_request"),
    (ModelConnectionError, "connection"),
)


def outcome(error: BaseException | None, about: Mapping[str, object]) -> str:
    """``ok``, ``closed`` when its reader left before the end, ``cancelled``, or ``error``."""
    if error is None:
        return "error" if about.get("failed") else "ok"
    if isinstance(error, GeneratorExit):
        return "closed"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"


def model_outcome(error: BaseException | None, about: Mapping[str, object]) -> str:
    """``outcome``, with what went wrong in place of ``error`` when the model says it."""
    return next((word for kind, word in _MODEL_OUTCOMES if isinstance(error, kind)), outcome(error, about))
