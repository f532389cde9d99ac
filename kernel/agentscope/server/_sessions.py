"""``/sessions``: what is stored of each session, its conversation, and ending what it has or does."""

import re
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
from agentscope.server._keys import CLAIMS, REQUEST_ID, RUNTIME
from agentscope.server._schemas import (
    LONGEST_SESSION_CURSOR,
    MESSAGE_CURSOR_PATTERN,
    MESSAGE_PAGES,
    SESSION_CURSOR_PATTERN,
    SESSION_PAGES,
    PageLimits,
    SessionId,
)
from agentscope.session import ConversationMovedError, Place, SessionRepository, SessionSummary, read_conversation

_T = TypeVar("_T")

PAGE_BYTES: Final = 8 * 1024 * 1024
"""How large a page of a conversation may be, unless it is a single message."""

_LARGEST_FENCE: Final = 2**63 - 1
_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)
_SESSION_CURSOR = re.compile(SESSION_CURSOR_PATTERN)
_MESSAGE_CURSOR = re.compile(MESSAGE_CURSOR_PATTERN)
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MAX_DETAILS = 20
_MAX_TEXT = 200


async def list_sessions(request: web.Request) -> web.Response:
    """A page of the sessions, in the order of their ids."""
    limit, after = _paging(request, _id_of, SESSION_PAGES)
    found = await _repository(request).list_sessions(after, limit + 1, owner=owner_of(request))
    cursor = _cursor_of(found[limit - 1].session_id) if len(found) > limit else None
    sessions = [_described(summary) for summary in found[:limit]]
    return _answer(request, 200, {"sessions": sessions, "next_cursor": cursor})


async def show_session(request: web.Request) -> web.Response:
    """One session, with the names of its modules."""
    session_id = _session_id(request)
    _refuse_parameters(request)
    owner = owner_of(request)
    # No save is newer than that: of the modules only the names are read.
    stored = await _repository(request).load(session_id, since=_LARGEST_FENCE)
    if stored is None or (owner is not None and stored.summary.owner != owner):
        raise _no_session(session_id)
    return _answer(request, 200, {**_described(stored.summary), "modules": sorted(stored.modules)})


async def show_messages(request: web.Request) -> web.Response:
    """A page of the conversation that a session's memories hold."""
    session_id = _session_id(request)
    limit, after = _paging(request, _place_of, MESSAGE_PAGES)
    try:
        page = await read_conversation(
            _repository(request),
            session_id,
            owner=owner_of(request),
            after=after,
            limit=limit,
            max_bytes=PAGE_BYTES,
        )
    except ConversationMovedError as error:
        message = "the conversation was rewritten since: begin again without a cursor"
        raise ApiError(404, "NOT_FOUND", message, [{"path": "cursor", "message": message}]) from error
    if page is None:
        raise _no_session(session_id)
    cursor = None if page.next is None else _cursor_to(page.next)
    messages = [msg.to_dict() for msg in page.messages]
    return _answer(request, 200, {"messages": messages, "next_cursor": cursor})


async def delete_session(request: web.Request) -> web.Response:
    """Delete a session, once no invocation of it runs."""
    session_id = _session_id(request)
    _refuse_parameters(request)
    if not await _runtime(request).delete_session(session_id, owner=owner_of(request)):
        raise _no_session(session_id)
    return _answer(request, 204)


async def cancel_session(request: web.Request) -> web.Response:
    """Cancel the invocation of a session, in whatever process it runs."""
    session_id = _session_id(request)
    _refuse_parameters(request)
    if not await _runtime(request).cancel_session(session_id, owner=owner_of(request)):
        raise ApiError(404, "NOT_FOUND", f"no invocation of session {session_id!r} is running")
    return _answer(request, 202, {"session_id": session_id})


def owner_of(request: web.Request) -> str | None:
    """Whose sessions the caller may use; None for all."""
    return request[RUNTIME].ownership.owner(request.get(CLAIMS))


def _runtime(request: web.Request) -> Runtime:
    runtime = request[RUNTIME]
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


def _paging(request: web.Request, read_cursor: Callable[[str], _T | None], pages: PageLimits) -> tuple[int, _T | None]:
    """The ``limit`` and the ``cursor`` of a request."""
    wrong = _unwanted(request, "limit", "cursor")
    limit, cursor = request.query.get("limit", str(pages.usual)), request.query.get("cursor")
    if not _NUMBER.fullmatch(limit) or not 1 <= int(limit) <= pages.most:
        wrong.setdefault("limit", f"must be a number from 1 to {pages.most}")
    after = None if cursor is None else read_cursor(cursor)
    if cursor is not None and after is None:
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


def _cursor_of(session_id: str) -> str:
    return session_id.encode().hex()


def _id_of(cursor: str) -> str | None:
    """The session id that a page begins after; None for what is no cursor.

    Whatever has a cursor's form is a place in the order of the ids: what the document promises is kept.
    """
    if len(cursor) > LONGEST_SESSION_CURSOR or not _SESSION_CURSOR.fullmatch(cursor):
        return None
    return _text(cursor)


def _cursor_to(place: Place) -> str:
    return f"{place.module.encode().hex()}.{place.pointer.encode().hex()}.{place.position}.{place.digest}"


def _place_of(cursor: str) -> Place | None:
    """The place that a page of a conversation begins after; None for what is no cursor."""
    if not _MESSAGE_CURSOR.fullmatch(cursor):
        return None
    module, pointer, position, digest = cursor.split(".")
    return Place(_text(module), _text(pointer), int(position), digest)


def _text(encoded: str) -> str:
    return bytes.fromhex(encoded).decode("utf-8", "replace")


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
