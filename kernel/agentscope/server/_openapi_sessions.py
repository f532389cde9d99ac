"""The operations of the OpenAPI document about sessions."""

from typing import Any, Final

from agentscope.server._openapi_errors import INVALID_REQUEST, NOT_FOUND, NOT_READY, SESSION_BUSY
from agentscope.server._openapi_parts import Operation, answer, header, in_query, parameter
from agentscope.server._schemas import (
    LONGEST_SESSION_CURSOR,
    MESSAGE_CURSOR_PATTERN,
    MESSAGE_PAGES,
    SESSION_CURSOR_PATTERN,
    SESSION_PAGES,
    PageLimits,
)

_SESSION: Final = {
    "session_id": "s1",
    "created_at": "2026-11-22T21:38:30.123Z",
    "updated_at": "2026-11-22T21:40:02.481Z",
    "version": 3,
    "size_bytes": 2210,
}
OF_ONE_SESSION: Final = ("showSession", "showMessages", "deleteSession", "cancelInvocation")
"""The operations that a session's id leads to."""

_COMMON: Final = (parameter("SessionId"), parameter("X-Request-Id"))
_REFUSALS: Final = (INVALID_REQUEST, NOT_FOUND, NOT_READY)
_CURSOR: Final = "the `next_cursor` of the page before; the first page is asked for without one"


def session_operations() -> list[Operation]:
    """Those of ``/sessions``."""
    return [_list(), _show(), _messages(), _delete(), _cancel()]


def _list() -> Operation:
    cursor = {
        "type": "string",
        "minLength": 2,
        "maxLength": LONGEST_SESSION_CURSOR,
        "pattern": SESSION_CURSOR_PATTERN,
    }
    first = {"session_id": "$response.body#/sessions/0/session_id"}
    page = answer("A page", "SessionPage", example={"sessions": [_SESSION], "next_cursor": "7331"})
    page["links"] = {
        **{name: {"operationId": name, "parameters": first} for name in OF_ONE_SESSION},
        "listSessions": {"operationId": "listSessions", "parameters": {"cursor": "$response.body#/next_cursor"}},
    }
    return Operation(
        "get",
        "/sessions",
        "listSessions",
        "A page of the sessions",
        "In the order of their ids. Where sessions have owners, those of the caller.",
        {200: page},
        [INVALID_REQUEST, NOT_READY],
        [_limit(SESSION_PAGES), in_query("cursor", _CURSOR, cursor), parameter("X-Request-Id")],
        tag="sessions",
    )


def _show() -> Operation:
    return Operation(
        "get",
        "/sessions/{session_id}",
        "showSession",
        "One session",
        "With the names of its state modules.",
        {200: answer("The session", "SessionWithModules", example={**_SESSION, "modules": ["memory", "toolkit"]})},
        _REFUSALS,
        _COMMON,
        tag="sessions",
    )


def _messages() -> Operation:
    cursor = {"type": "string", "pattern": MESSAGE_CURSOR_PATTERN}
    return Operation(
        "get",
        "/sessions/{session_id}/messages",
        "showMessages",
        "A page of the conversation of a session",
        "As its memories hold it. When the messages before the cursor were rewritten meanwhile, its page is no longer "
        "there: begin again without a cursor.",
        {200: answer("A page", "ConversationPage")},
        _REFUSALS,
        [
            parameter("SessionId"),
            _limit(MESSAGE_PAGES),
            in_query("cursor", _CURSOR, cursor),
            parameter("X-Request-Id"),
        ],
        tag="sessions",
    )


def _delete() -> Operation:
    return Operation(
        "delete",
        "/sessions/{session_id}",
        "deleteSession",
        "Delete a session",
        "Waits for a running invocation of the session, `session.queue_timeout` seconds at most.",
        {204: {"description": "The session is gone", "headers": {"X-Request-Id": header("X-Request-Id")}}},
        [*_REFUSALS, SESSION_BUSY],
        _COMMON,
        tag="sessions",
    )


def _cancel() -> Operation:
    return Operation(
        "post",
        "/sessions/{session_id}/cancel",
        "cancelInvocation",
        "Cancel the running invocation of a session",
        "Wherever it runs: its stream ends with a trailer of code `CANCELLED`.",
        {202: answer("The invocation ends", "Cancelling", example={"session_id": "s1"})},
        _REFUSALS,
        _COMMON,
        tag="sessions",
    )


def _limit(pages: PageLimits) -> dict[str, Any]:
    kind = {"type": "integer", "minimum": 1, "maximum": pages.most, "default": pages.usual}
    return in_query("limit", "how many a page has at most", kind)
