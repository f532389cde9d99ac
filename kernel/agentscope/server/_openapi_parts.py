"""The pieces that operations of the OpenAPI document are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentscope.server._openapi_errors import Refusal, responses_of


@dataclass(frozen=True)
class Operation:
    """One method of one path. ``success`` are its answers that are no refusals, by their status.

    ``is_open`` says that nobody needs a token for it.
    """

    method: str
    path: str
    name: str
    summary: str
    description: str
    success: Mapping[int, Mapping[str, Any]]
    refusals: Sequence[Refusal]
    parameters: Sequence[Mapping[str, Any]] = ()
    body: Mapping[str, Any] | None = None
    tag: str = "operations"
    is_open: bool = field(default=False, kw_only=True)

    def described(self) -> dict[str, Any]:
        """The Operation Object."""
        described: dict[str, Any] = {
            "operationId": self.name,
            "summary": self.summary,
            "description": self.description,
            "tags": [self.tag],
        }
        if self.parameters:
            described["parameters"] = list(self.parameters)
        if self.body is not None:
            described["requestBody"] = self.body
        success = {str(status): response for status, response in self.success.items()}
        described["responses"] = {**success, **responses_of(self.refusals)}
        if self.is_open:
            described["security"] = []
        return described


def schema(name: str) -> dict[str, str]:
    """A model of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def header(name: str) -> dict[str, str]:
    """A header of the document."""
    return {"$ref": f"#/components/headers/{name}"}


def parameter(name: str) -> dict[str, str]:
    """A parameter of the document."""
    return {"$ref": f"#/components/parameters/{name}"}


def answer(description: str, model: str, *headers: str, example: object = None) -> dict[str, Any]:
    """An answer that is one JSON document."""
    content: dict[str, Any] = {"schema": schema(model)}
    if example is not None:
        content["example"] = example
    return {
        "description": description,
        "headers": {name: header(name) for name in ("X-Request-Id", *headers)},
        "content": {"application/json": content},
    }


def in_query(name: str, description: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    """A query parameter that may be left out."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": kind}


def in_header(name: str, description: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    """A header that may be left out."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": kind}
