"""Reading and checking the body of ``POST /invoke``."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, cast

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
)

from agentscope.message import (
    AudioBlock,
    ContentBlock,
    ImageBlock,
    Msg,
    Role,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    VideoBlock,
)
from agentscope.server._errors import ApiError
from agentscope.server._keys import RUNTIME
from agentscope.session import SESSION_ID_PATTERN

_MAX_DETAILS = 20
_MAX_TEXT = 200

MAX_DEPTH = 100
"""How deep the JSON of a request may be nested: deeper is nobody's message, and could not be written out again."""


def _iso8601(value: str) -> str:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a time in ISO 8601") from None
    return value


SessionId = Annotated[str, Field(min_length=1, max_length=256, pattern=SESSION_ID_PATTERN)]

_Block = Annotated[
    TextBlock | ThinkingBlock | ImageBlock | AudioBlock | VideoBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]
# Checks of their own, because a block may have keys that only its vendor knows, and a message may not. Of a long list
# the first wrong block is enough: to name each of a million takes longer than all that an honest request ever does.
_BLOCK_KEYS = ConfigDict(extra="allow", strict=True)
_BLOCKS: TypeAdapter[list[ContentBlock]] = TypeAdapter(list[_Block], config=_BLOCK_KEYS)
_MANY_BLOCKS: TypeAdapter[list[ContentBlock]] = TypeAdapter(Annotated[list[_Block], FailFast()], config=_BLOCK_KEYS)


class MessageBody(BaseModel):
    """``message`` of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    role: Role
    content: Any
    id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    metadata: dict[str, Any] | None = None
    timestamp: Annotated[str, Field(max_length=64), AfterValidator(_iso8601)] | None = None


class InvokeBody(BaseModel):
    """The body of ``POST /invoke``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    session_id: SessionId
    message: MessageBody
    metadata: dict[str, Any] = {}


_BODY = TypeAdapter(InvokeBody)
_PLAIN_WORDS = {
    "extra_forbidden": "unknown field",
    "missing": "required",
    "string_pattern_mismatch": "must not hold control characters",
    "string_too_short": "must not be empty",
    "list_type": "must be a string or a list of content blocks",
}


async def read_invocation(request: web.Request) -> tuple[str, Msg, dict[str, Any]]:
    """The session id, the message and the metadata of a request. Raises ``ApiError`` when they are not all right."""
    _check_media_type(request)
    try:
        body = await _read_body(request)
    except (web.RequestPayloadError, HttpProcessingError) as error:
        message = "the body can't be read: it is cut or wrongly encoded"
        raise ApiError(400, "INVALID_REQUEST", message, closes=True) from error
    try:
        data: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "INVALID_JSON", f"the body is not JSON in UTF-8: {error}") from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth_exceeds(data, MAX_DEPTH):
        raise ApiError(400, "INVALID_REQUEST", f"the body is nested more than {MAX_DEPTH} levels deep")
    details = _all_offences(data)
    if details:
        fields = ", ".join(dict.fromkeys(detail["path"] or "the body" for detail in details))
        raise ApiError(400, "INVALID_REQUEST", f"the request is not valid: {fields}", details)
    # What was checked is used as it came: blocks keep the keys that only their vendor knows.
    checked = cast("dict[str, Any]", data)
    return checked["session_id"], Msg.from_dict(checked["message"]), checked.get("metadata", {})


async def _read_body(request: web.Request) -> bytes:
    # Not `request.read()`: its limit is that of the application this one may be mounted in.
    limit = request.app[RUNTIME].settings.server.max_body_bytes
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > limit:
            raise ApiError(413, "PAYLOAD_TOO_LARGE", f"the body is larger than {limit} bytes")
    return bytes(body)


def _check_media_type(request: web.Request) -> None:
    declared = request.headers.get("Content-Type")
    if declared is not None:
        media_type = request.content_type
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            raise ApiError(
                415, "UNSUPPORTED_MEDIA_TYPE", "the body must be JSON: send `Content-Type: application/json`"
            )
        if (request.charset or "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be encoded in UTF-8")
    if request.headers.get("Content-Encoding", "identity").lower() not in {"identity", "gzip", "deflate"}:
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body may be compressed with gzip or deflate only")


def _depth_exceeds(data: object, limit: int) -> bool:
    level = [data]
    for _ in range(limit):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(cast("dict[str, object]", value).values())
            elif isinstance(value, list):
                below.extend(cast("list[object]", value))
        if not below:
            return False
        level = below
    return any(isinstance(value, dict | list) for value in level)


def _all_offences(data: object) -> list[dict[str, str]]:
    body = _as_object(data)
    message = _as_object(body.get("message"))
    if len(body) > _MAX_DETAILS or len(message) > _MAX_DETAILS:
        return [{"path": "message" if len(message) > _MAX_DETAILS else "", "message": "has far too many fields"}]
    offences = _offences(_BODY, data, ())
    content: object = message.get("content", "")
    if not isinstance(content, str):
        count = len(cast("list[object]", content)) if isinstance(content, list) else 0
        checker = _MANY_BLOCKS if count > _MAX_DETAILS else _BLOCKS
        offences += _offences(checker, message.get("content"), ("message", "content"))
    return offences


def _as_object(data: object) -> dict[str, Any]:
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def _offences(checker: TypeAdapter[Any], data: object, prefix: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        checker.validate_python(data)
    except ValidationError as error:
        return [
            {
                "path": (".".join(prefix) + _path(found["loc"], data, within=bool(prefix)))[:_MAX_TEXT],
                "message": _PLAIN_WORDS.get(found["type"], found["msg"])[:_MAX_TEXT],
            }
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    return []


def _path(location: Sequence[int | str], data: object, *, within: bool) -> str:
    """``message.content[0].text``, or the part of it ``within`` a field.

    The location also names union members, which are no part of the document.
    """
    path = ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
            data = cast("list[object]", data)[part] if isinstance(data, list) else None
        elif isinstance(data, dict) and (part in data or index == len(location) - 1):
            path += f".{part}" if path or within else part
            data = cast("dict[str, object]", data).get(part)
    return path
