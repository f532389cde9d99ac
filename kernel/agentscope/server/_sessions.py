"""``/sessions``: what is stored of each session, its conversation, and ending what it has or does."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import orjson
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from agentscope.errors import RuntimeNotReadyError
from agentscope.runtime import Runtime
from agentscope.server._errors import ApiError
from agentscope.server._keys import REQUEST_ID, RUNTIME
from agentscope.server._request import SessionId
from agentscope.session import ConversationMovedError, Place, SessionRepository, SessionSummary, read_conversation

_T = TypeVar("_T")

PAGE_BYTES: Final = 8 * 1024 * 1024
"""How large a page of a conversation may be, unless it is a single message."""

_LARGEST_FENCE: Final = 2**63 - 1
_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)
_PLACE = TypeAdapter(Place)
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MAX_DETAILS = 20
_MAX_TEXT = 200


async def list_sessions(request: web.Request) -> web.Response:
    """A page of the sessions, in the order of their ids."""
    limit, after = _paging(request, _id_of, most=1000, usual=100)
    found = await _repository(request).list_sessions(after, limit + 1)
    cursor = _encoded(found[limit - 1].session_id.encode()) if len(found) > limit else None
    sessions = [_described(summary) for summary in found[:limit]]
    return _answer(request, 200, {"sessions": sessions, "next_cursor": cursor})


async def show_session(request: web.Request) -> web.Response:
    """One session, with the names of its modules."""
    session_id = _session_id(request)
    _refuse_parameters(request)
    # No save is newer than that: of the modules only the names are read.
    stored = await _repository(request).load(session_id, since=_LARGEST_FENCE)
    if stored is None:
        raise _no_session(session_id)
    return _answer(request, 200, {**_described(stored.summary), "modules": sorted(stored.modules)})


async def show_messages(request: web.Request) -> web.Response:
    """A page of the conversation that a session's memories hold."""
    session_id = _session_id(request)
    limit, after = _paging(request, _place_of, most=10_000, usual=1000)
    try:
        page = await read_conversation(
            _repository(request), session_id, after=after, limit=limit, max_bytes=PAGE_BYTES
        )
    except ConversationMovedError as error:
        raise _invalid({"cursor": "the conversation was rewritten since: begin again without one"}) from error
    if page is None:
        raise _no_session(session_id)
    cursor = None if page.next is None else _encoded(orjson.dumps(tuple(page.next)))
    messages = [msg.to_dict() for msg in page.messages]
    return _answer(request, 200, {"messages": messages, "next_cursor": cursor})


async def delete_session(request: web.Request) -> web.Response:
    """Delete a session, once no invocation of it runs."""
    session_id = _session_id(request)
    _refuse_parameters(request)
    if not await _runtime(request).delete_session(session_id):
        raise _no_session(session_id)
    return _answer(request, 204)


async def cancel_session(request: web.Request) -> web.Response:
    """Cancel the invocation of a session that runs in this process."""
    session_id = _session_id(request)
    _refuse_parameters(request)
    if not _runtime(request).cancel_session(session_id):
        raise ApiError(404, "NOT_FOUND", f"no invocation of session {session_id!r} is running here")
    return _answer(request, 202, {"session_id": session_id})


def _runtime(request: web.Request) -> Runtime:
    runtime = request.app[RUNTIME]
    if not runtime.is_initialized:
        raise RuntimeNotReadyError(f"the runtime is {runtime.state}")
    return runtime


def _repository(request: web.Request) -> SessionRepository:
    return _runtime(request).container.session_repository()


def _session_id(request: web.Request) -> str:
    session_id = request.match_info["session_id"]
    # Of a broken encoding aiohttp keeps what it can't read: two paths would be one session.
    if not _is_well_encoded(request.rel_url.raw_path) or not _is_session_id(session_id):
        rule = "must be 1 to 256 characters, none of them a control character, percent-encoded in UTF-8"
        raise _invalid({"session_id": rule})
    return session_id


def _is_well_encoded(path: str) -> bool:
    try:
        unquote_to_bytes(path.encode()).decode()
    except UnicodeError:
        return False
    return not _BROKEN_PERCENT.search(path)


def _is_session_id(text: str) -> bool:
    try:
        _SESSION_ID.validate_python(text)
    except ValidationError:
        return False
    return True


def _paging(
    request: web.Request, read_cursor: Callable[[bytes], _T], *, most: int, usual: int
) -> tuple[int, _T | None]:
    """The ``limit`` and the ``cursor`` of a request."""
    wrong = _unwanted(request, "limit", "cursor")
    limit, cursor = request.query.get("limit", str(usual)), request.query.get("cursor")
    if not _NUMBER.fullmatch(limit) or not 1 <= int(limit) <= most:
        wrong.setdefault("limit", f"must be a number from 1 to {most}")
    after: _T | None = None
    try:
        after = None if cursor is None else read_cursor(_decoded(cursor))
    except ValueError:
        wrong.setdefault("cursor", "must be the next_cursor of the page before")
    if wrong:
        raise _invalid(wrong)
    return int(limit), after


def _refuse_parameters(request: web.Request) -> None:
    if wrong := _unwanted(request):
        raise _invalid(wrong)


def _unwanted(request: web.Request, *known: str) -> dict[str, str]:
    """The query parameters that are not known, or are there twice, each with what is wrong."""
    query = request.query
    wrong = {name: "unknown parameter" for name in query if name not in known}
    return wrong | {name: "is given more than once" for name in known if len(query.getall(name, ())) > 1}


def _id_of(cursor: bytes) -> str:
    """The session id that a page begins after."""
    session_id = cursor.decode()
    if not session_id or "\x00" in session_id:
        raise ValueError("no store has such an id, and Postgres refuses to look for it")
    return session_id


def _place_of(cursor: bytes) -> Place:
    """The place that a page of a conversation begins after."""
    place = _PLACE.validate_json(cursor, strict=True)
    if not 1 <= place.position < 2**31:
        raise ValueError("no list is so long, and no store takes every number")
    return place


def _encoded(cursor: bytes) -> str:
    return urlsafe_b64encode(cursor).decode()


def _decoded(cursor: str) -> bytes:
    decoded = urlsafe_b64decode(cursor)
    if _encoded(decoded) != cursor:
        raise ValueError("no cursor of ours")
    return decoded


def _described(summary: SessionSummary) -> dict[str, Any]:
    return {
        "session_id": summary.session_id,
        "created_at": _utc(summary.created_at),
        "updated_at": _utc(summary.updated_at),
        "version": summary.revision.version,
        "size_bytes": summary.size_bytes,
    }


def _utc(time: datetime) -> str:
    """As in messages: with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _no_session(session_id: str) -> ApiError:
    return ApiError(404, "NOT_FOUND", f"session {session_id!r} does not exist")


def _invalid(wrong: dict[str, str]) -> ApiError:
    # The name of a parameter is whatever a client wrote: it may be no text, and of any length.
    named = {name.encode("utf-8", "replace").decode()[:_MAX_TEXT]: wrong[name] for name in list(wrong)[:_MAX_DETAILS]}
    details = [{"path": path, "message": message} for path, message in named.items()]
    return ApiError(400, "INVALID_REQUEST", f"the request is not valid: {', '.join(named)}", details)


def _answer(request: web.Request, status: int, document: dict[str, Any] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=None if document is None else orjson.dumps(document),
        content_type=None if document is None else "application/json",
        headers={"Cache-Control": "no-store", "X-Request-Id": request[REQUEST_ID]},
    )
