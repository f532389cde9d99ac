"""What the vendors' adapters share: a client's arguments, texts without secrets, failures in the port's words."""

import base64
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from inspect import Parameter, signature
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import orjson

from agentscope.errors import UserError
from agentscope.message import ToolUseBlock
from agentscope.model import (
    ModelAuthenticationError,
    ModelBadRequestError,
    ModelConnectionError,
    ModelError,
    ModelOverloadedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from agentscope.runtime.settings import ModelSettings

ClientT = TypeVar("ClientT")

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


class Secrets:
    """The words of one model's configuration that no text may hold."""

    __slots__ = ("_words",)

    def __init__(self, words: Iterable[str]) -> None:
        # The longest first, for one may be part of another.
        self._words = sorted({word for word in words if word}, key=len, reverse=True)

    def scrub(self, text: str) -> str:
        """The text with ``***`` in place of each secret."""
        for word in self._words:
            text = text.replace(word, "***")
        return text

    def scrub_error(self, error: BaseException) -> None:
        """Take the secrets out of an exception and its causes: a traceback prints the text of each."""
        for cause in causes(error):
            cause.args = tuple(self.scrub(arg) if isinstance(arg, str) else arg for arg in cause.args)


def client_arguments(
    slot: str,
    settings: ModelSettings,
    *,
    credentials: Collection[str],
    variable: str,
    base_url: str | None = None,
    fallback_key: str | None = None,
) -> tuple[dict[str, Any], Secrets]:
    """The keyword arguments of a vendor's client, and the secrets among them.

    ``credentials`` are the client's own arguments of which any one replaces the key: what is written in
    ``client_kwargs`` wins over a key that came from the environment. ``base_url`` is the preset's. Raises
    ``UserError`` when there is no key, naming ``variable``, or one that no HTTP header can hold.
    """
    arguments = dict(settings.client_kwargs)
    given: list[object] = [arguments[name] for name in credentials if arguments.get(name)]
    if not given:
        key = settings.api_key.get_secret_value() if settings.api_key is not None else ""
        if key and (not key.isascii() or not key.isprintable() or " " in key):
            raise UserError(
                f"models.{slot}.api_key: holds a space, a line break or a character that no HTTP header can hold; "
                "copy the key again"
            )
        if not key and fallback_key is None:
            raise UserError(
                f"models.{slot}.api_key: required by provider {settings.provider!r}; "
                f"set it, or the environment variable {variable}"
            )
        arguments["api_key"] = key or fallback_key
        given.append(key)
    if settings.base_url is not None or base_url is not None:
        arguments["base_url"] = settings.base_url or arguments.get("base_url") or base_url
    secrets = [secret for secret in given if isinstance(secret, str)]
    for name in ("base_url", "azure_endpoint"):
        if isinstance(url := arguments.get(name), str):
            arguments[name], login = _without_login(url)
            if login:
                user, _, password = login.partition(":")
                token = base64.b64encode(unquote(login).encode()).decode()
                # A user's name alone is a token; beside a password it is no secret.
                secrets += [login, unquote(login), password or user, unquote(password or user), token]
                # The SDKs and their HTTP client log the URL of each request: the login goes in the header that the
                # client would have made of it.
                headers: dict[str, str] = arguments.get("default_headers") or {}
                arguments["default_headers"] = {"Authorization": f"Basic {token}", **headers}
    return arguments, Secrets(secrets)


def build_client(
    slot: str, client_class: Callable[..., ClientT], arguments: Mapping[str, Any], secrets: Secrets
) -> ClientT:
    """The vendor's client. Raises ``UserError`` when it doesn't take the arguments."""
    try:
        return client_class(**arguments)
    except Exception as error:  # an SDK raises TypeError, ValueError or its own root for arguments that it can't use
        secrets.scrub_error(error)
        raise UserError(f"models.{slot}.client_kwargs: {error}") from error


def parameters_of(method: Callable[..., object]) -> frozenset[str]:
    """The names of a method's keyword parameters."""
    parameters = signature(method).parameters.values()
    return frozenset(parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY)


def merge_arguments(known: frozenset[str], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one request; a later layer wins over an earlier one.

    An SDK has no parameter for what only a compatible vendor knows, or for what its own vendor has retired; both go
    into the body as they are.
    """
    merged = {name: value for layer in layers for name, value in layer.items()}
    unknown = {name: merged.pop(name) for name in merged.keys() - known}
    if unknown:
        merged["extra_body"] = {**unknown, **(merged.get("extra_body") or {})}
    return merged


def tool_use(id: str, name: str, arguments: str) -> ToolUseBlock:
    """The block of a complete tool call. No text at all means no arguments."""
    block: ToolUseBlock = {"type": "tool_use", "id": id, "name": name, "input": {}}
    try:
        value: object = orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        block["input"] = cast("dict[str, Any]", value)
    else:
        block["raw_input"] = arguments
    return block


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


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, the latest first."""
    # Not the contexts: they lead on to what the caller was handling when it called.
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__


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


def _without_login(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""  # the client says what is wrong with it
    login, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), login
