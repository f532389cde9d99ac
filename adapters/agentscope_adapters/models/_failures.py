"""A vendor's failures in the port's words."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from agentscope.model import (
    ModelAuthenticationError,
    ModelBadRequestError,
    ModelConnectionError,
    ModelError,
    ModelOverloadedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from agentscope_adapters.secrets import Secrets, causes

_LONGEST_DETAIL: Final = 1000

# An error inside a stream comes after HTTP 200: its type says which status it would have had. The words are those of
# https://platform.openai.com/docs/guides/error-codes and https://docs.anthropic.com/en/api/errors
_STATUS_OF_TYPE: Final = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "engine_overloaded": 503,
    "service_unavailable": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def unsupported(slot: str, vendor: str, block_type: str, where: str) -> ModelBadRequestError:
    """The error for a block that the vendor's protocol has no place for."""
    return ModelBadRequestError(slot, f"a block of type {block_type!r} in {where} can't be sent to {vendor}")


def cut_short(slot: str) -> ModelConnectionError:
    """The error for a stream that ended politely, but without the event that closes an answer."""
    return ModelConnectionError(slot, "the stream ended before the answer was whole")


def error_for_status(slot: str, detail: str, status: int, headers: Mapping[str, str]) -> ModelError:
    """The error for an answer with a status that isn't a success."""
    if status == 429:
        return ModelRateLimitError(slot, shorten(detail), status=status, retry_after=retry_after(headers))
    return _class_for(status)(slot, shorten(detail), status=status)


def error_for_event(slot: str, detail: str, types: Iterable[object]) -> ModelError:
    """The error for an error event inside a stream. The first of ``types`` that is known, or is a status, decides."""
    for word in map(str, types):
        status = _STATUS_OF_TYPE.get(word) or (int(word) if len(word) == 3 and word.isdecimal() else None)
        if status is not None:
            return _class_for(status)(slot, shorten(detail))
    return ModelError(slot, shorten(detail))


def error_for_transport(slot: str, error: BaseException, *, timed_out: bool, secrets: Secrets) -> ModelError:
    """The error for a connection that could not be made, was cut or fell silent."""
    # The causes say what failed; the SDKs' own words say no more than the error's class does.
    details = [str(cause) for cause in causes(error)][1:]
    detail = shorten(secrets.scrub(next((text for text in details if text), "" if timed_out else str(error))))
    # On aiohttp as its HTTP client, an SDK calls a refused connection a time-out.
    refused = any(isinstance(cause, OSError) and not isinstance(cause, TimeoutError) for cause in causes(error))
    return ModelTimeoutError(slot, detail) if timed_out and not refused else ModelConnectionError(slot, detail)


def shorten(detail: str) -> str:
    """A proxy's error page is not to fill the log."""
    return detail if len(detail) <= _LONGEST_DETAIL else detail[:_LONGEST_DETAIL] + "…"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``Retry-After`` (RFC 9110, 10.2.3: seconds or an HTTP date)."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _class_for(status: int) -> type[ModelError]:
    if status in (401, 403):
        return ModelAuthenticationError
    if status == 408:
        return ModelTimeoutError
    if status == 429:
        return ModelRateLimitError
    if status >= 500:
        return ModelOverloadedError
    return ModelBadRequestError if status >= 400 else ModelError


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
