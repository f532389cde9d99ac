"""The OpenAPI 3.1 document, made from the models that check requests."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from agentscope import __version__
from agentscope.server._openapi_answers import ANSWERS
from agentscope.server._openapi_errors import FORBIDDEN, UNAUTHORIZED, responses_of
from agentscope.server._openapi_invoke import invoke_operation, resume_operation
from agentscope.server._openapi_parts import Operation
from agentscope.server._openapi_process import process_operations
from agentscope.server._openapi_sessions import session_operations
from agentscope.server._schemas import LONGEST_SESSION_ID, InvokeBody
from agentscope.session import SESSION_ID_PATTERN


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is switched on: a server does not promise the rest."""

    auth: bool
    replay: bool
    metrics: bool


_DESCRIPTION: Final = """\
An app that answers messages, each in a session. A failure has one form, whatever the path: `{"error": {...}}`, with a
code for programs and a message for people. Every answer names its `X-Request-Id`, and the log has more under it.

A path that does not know a method answers 405 with `Allow`. Every GET but that of a stream can be asked as HEAD."""

_TAGS: Final = [
    {"name": "invocations", "description": "Messages and their answers"},
    {"name": "sessions", "description": "What is stored of each session"},
    {"name": "operations", "description": "What operators and developers ask"},
]

_TEXT: Final = {"type": "string"}
_HEADERS: Final[dict[str, Any]] = {
    "X-Request-Id": {
        "description": "the request's own `X-Request-Id`, or a new one; the log has it as well",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    },
    "X-Invocation-Id": {"description": "names the invocation", "required": True, "schema": _TEXT},
    "Cache-Control": {"description": "nobody keeps an answer", "required": True, "schema": {"const": "no-store"}},
    "X-Accel-Buffering": {"description": "nginx passes lines on as they come", "schema": {"const": "no"}},
    "Retry-After": {
        "description": "how many seconds to wait before another try",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "what is wrong with the token", "required": True, "schema": _TEXT},
}
_PARAMETERS: Final[dict[str, Any]] = {
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "names the request in the answer and in the log, when it is 1 to 128 of `A-Z a-z 0-9 . _ : -`",
        "schema": _TEXT,
    },
    "SessionId": {
        "name": "session_id",
        "in": "path",
        "required": True,
        "description": "percent-encoded, a slash in it as `%2F`",
        "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_SESSION_ID, "pattern": SESSION_ID_PATTERN},
    },
}
_BEARER: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "a token of `server.auth`: one that it lists, or a JWT",
}


def make_document(features: Features, *, title: str, prefix: str = "") -> dict[str, Any]:
    """The document of a server with these features. ``prefix`` is the path that the application is mounted at."""
    components: dict[str, Any] = {"schemas": _schemas(), "parameters": _PARAMETERS, "headers": _HEADERS}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": prefix or "/"}],
        "tags": _TAGS,
        "paths": _paths(features),
        "components": components,
    }
    if features.auth:
        components["securitySchemes"] = {"bearer": _BEARER}
        document["security"] = [{"bearer": list[str]()}]
    return document


def encode_document(features: Features, *, title: str, prefix: str = "") -> bytes:
    """The same as JSON."""
    return orjson.dumps(make_document(features, title=title, prefix=prefix))


def operations(features: Features) -> list[Operation]:
    """All that can be asked."""
    resume = [resume_operation()] if features.replay else []
    processes = process_operations(metrics=features.metrics)
    return [invoke_operation(replay=features.replay), *resume, *session_operations(), *processes]


def _paths(features: Features) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in operations(features):
        described = operation.described()
        responses = described["responses"]
        if features.auth and not operation.is_open:
            responses |= responses_of([UNAUTHORIZED, FORBIDDEN])
        described["responses"] = dict(sorted(responses.items()))
        paths.setdefault(operation.path, {})[operation.method] = described
    return paths


class _Describe(GenerateJsonSchema):
    """Without titles that say the name of a field again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schemas() -> dict[str, Any]:
    described: tuple[type[BaseModel], ...] = (InvokeBody, *ANSWERS)
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in described]
    _, made = models_json_schema(models, ref_template="#/components/schemas/{model}", schema_generator=_Describe)
    schemas: dict[str, Any] = made["$defs"]
    for schema in schemas.values():
        schema.pop("title", None)
        # Docstrings name code as reStructuredText does, descriptions as Markdown.
        schema["description"] = schema["description"].replace("``", "`")
    return dict(sorted(schemas.items()))
