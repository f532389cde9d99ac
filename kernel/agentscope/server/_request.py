"""Reading and checking the body of ``POST /invoke``."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import orjson
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from agentscope.message import Msg
from agentscope.server._body import read_body
from agentscope.server._errors import ApiError
from agentscope.server._keys import RUNTIME
from agentscope.server._schemas import BLOCKS, MANY_BLOCKS, MOST_BLOCKS, InvokeBody

_MAX_DETAILS = 20
_MAX_TEXT = 200

MAX_CONTAINERS = 250_000
"""How many objects and lists the JSON of a request may have: while they are read, nobody else is served. Brackets
inside texts count as well, for they are counted before anything is read."""

MAX_DEPTH = 100
"""How deep the JSON of a request may be nested: deeper is nobody's message, and could not be written out again."""

_BODY = TypeAdapter(InvokeBody)
_PLAIN_WORDS = {
    "extra_forbidden": "unknown field",
    "missing": "required",
    "string_pattern_mismatch": "must not hold control characters",
    "string_too_short": "must not be empty",
    "list_type": "must be a string or a list of content blocks",
}


class InvokeRequest(NamedTuple):
    """What a client asks for. ``fingerprint`` tells the body from others; it is there with an ``idempotency_key``."""

    session_id: str
    msg: Msg
    metadata: dict[str, Any]
    idempotency_key: str | None = None
    fingerprint: str = ""


async def read_invocation(request: web.Request) -> InvokeRequest:
    """What the request asks for. Raises ``ApiError`` when it is not all right."""
    _check_media_type(request)
    key = _idempotency_key(request)
    body = await read_body(request)
    containers = body.count(b"[") + body.count(b"{")
    if containers > MAX_CONTAINERS:
        wrong = f"has more than {MAX_CONTAINERS} objects and lists"
        raise ApiError(400, "INVALID_REQUEST", f"the body {wrong}", [{"path": "", "message": wrong}])
    try:
        data: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "INVALID_JSON", f"the body is not JSON in UTF-8: {error}") from error
    if containers > MAX_DEPTH and _depth_exceeds(data, MAX_DEPTH):
        raise ApiError(400, "INVALID_REQUEST", f"the body is nested more than {MAX_DEPTH} levels deep")
    details = _all_offences(data)
    if details:
        fields = ", ".join(dict.fromkeys(detail["path"] or "the body" for detail in details))
        raise ApiError(400, "INVALID_REQUEST", f"the request is not valid: {fields}", details)
    # What was checked is used as it came: blocks keep the keys that only their vendor knows.
    checked = cast("dict[str, Any]", data)
    fingerprint = "" if key is None else blake2b(body, digest_size=16).hexdigest()
    msg = Msg.from_dict(checked["message"])
    return InvokeRequest(checked["session_id"], msg, checked.get("metadata", {}), key, fingerprint)


def _idempotency_key(request: web.Request) -> str | None:
    if "Idempotency-Key" not in request.headers:
        return None
    keys = request.headers.getall("Idempotency-Key")
    if not request[RUNTIME].settings.server.replay_ttl:
        wrong = "is not honoured by this server: set server.replay_ttl, or send none"
    elif len(keys) > 1:
        wrong = "is given more than once"
    elif not 1 <= len(keys[0]) <= 256 or not keys[0].isascii() or not keys[0].isprintable():
        wrong = "must be 1 to 256 printable ASCII characters"
    else:
        return keys[0]
    details = [{"path": "Idempotency-Key", "message": wrong}]
    raise ApiError(400, "INVALID_REQUEST", f"the request is not valid: Idempotency-Key {wrong}", details)


def _check_media_type(request: web.Request) -> None:
    declared = request.headers.get("Content-Type")
    if declared is not None and declared != "application/json":
        media_type = request.content_type
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            raise ApiError(
                415, "UNSUPPORTED_MEDIA_TYPE", "the body must be JSON: send `Content-Type: application/json`"
            )
        if (request.charset or "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be encoded in UTF-8")


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
        count = _count_blocks(content)
        if count > MOST_BLOCKS:
            return [{"path": "message.content", "message": f"has more than {MOST_BLOCKS} blocks"}]
        checker = MANY_BLOCKS if count > _MAX_DETAILS else BLOCKS
        offences += _offences(checker, message.get("content"), ("message", "content"))
    return offences[:_MAX_DETAILS]


def _count_blocks(content: object) -> int:
    """How many blocks there are, those in the outputs of tools included."""
    if not isinstance(content, list):
        return 0
    blocks = cast("list[object]", content)
    outputs = (cast("dict[str, object]", block).get("output") for block in blocks if isinstance(block, dict))
    return len(blocks) + sum(len(cast("list[object]", output)) for output in outputs if isinstance(output, list))


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
