"""Make ``docs/http.md`` from ``docs/http.template`` and the OpenAPI document: ``python docs/generate.py``.

The template is the page with its prose and examples. A line ``{{ table argument }}`` in it becomes a table of what the
document says, so that page, document and checks can't disagree.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agentscope.server._openapi_document import Features, make_document
from agentscope.server._openapi_errors import REFUSALS

DOCS: Final = Path(__file__).parent
_PLACE: Final = re.compile(r"^\{\{ (\w+)(?: (.+))? \}\}$", re.MULTILINE)
_ON_EVERY_CALL: Final = "X-Request-Id"
_WITH_EVERY_CALL: Final = frozenset({"401", "403", "503"})
_TOO_LARGE_TO_TELL: Final = 10**9


class Page:
    """The tables of a page, from an OpenAPI document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._tables: Mapping[str, Callable[[str], str]] = {
            "operations": self._operations,
            "parameters": self._parameters,
            "fields": self._fields,
            "answers": self._answers,
            "errors": lambda _: _errors(),
        }

    def render(self, template: str) -> str:
        """The page. Raises ``KeyError`` for a table, an operation or a model that does not exist."""
        return _PLACE.sub(lambda place: self._tables[place[1]](place[2] or ""), template)

    def _operations(self, tag: str) -> str:
        """All calls, or those of a tag with what they answer."""
        rows: list[tuple[str, ...]] = []
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                call = f"`{method.upper()} {path}`"
                if not tag:
                    rows.append((call, operation["summary"]))
                elif tag in operation["tags"]:
                    rows.append((call, *self._outcomes(operation["responses"])))
        return _table(("call", "answer", "refusals") if tag else ("call", ""), rows)

    def _outcomes(self, responses: Mapping[str, Any]) -> tuple[str, str]:
        answers = [f"{status}, {each['description']}" for status, each in responses.items() if status < "4"]
        refusals = [_codes(status, each) for status, each in responses.items() if status >= "4"]
        return "; ".join(answers), ", ".join(filter(None, refusals))

    def _parameters(self, call: str) -> str:
        found = [self._resolved(each) for each in self._operation(call)["parameters"]]
        rows = [
            (f"`{each['name']}`", each["in"], self._kind(each["schema"]), each["description"] + _usual(each["schema"]))
            for each in found
            if each["name"] != _ON_EVERY_CALL
        ]
        return _table(("parameter", "in", "type", ""), rows)

    def _fields(self, name: str) -> str:
        return _table(("field", "type", ""), self._rows(self._document["components"]["schemas"][name], ""))

    def _rows(self, model: Mapping[str, Any], prefix: str) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for name, field in model["properties"].items():
            described = self._resolved(field)
            needed = "required" if name in model.get("required", ()) else "optional"
            about = field.get("description") or described.get("description", "")
            rows.append((f"`{prefix}{name}`", self._kind(described), f"{needed}; {about}" if about else needed))
            if "$ref" in field:
                rows += self._rows(described, f"{prefix}{name}.")
        return rows

    def _answers(self, call: str) -> str:
        rows: list[tuple[str, ...]] = []
        for status, response in self._operation(call)["responses"].items():
            forms = [f"`{form}`" for form in response.get("content", ())] if status < "4" else []
            rows.append((status, "; ".join(filter(None, [response["description"], ", ".join(forms)]))))
        return _table(("status", "answer"), rows)

    def _operation(self, call: str) -> Mapping[str, Any]:
        method, path = call.split()
        operation: Mapping[str, Any] = self._document["paths"][path][method.lower()]
        return operation

    def _resolved(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in part:
            return part
        found: Any = self._document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        resolved: Mapping[str, Any] = found
        return resolved

    def _kind(self, schema: Mapping[str, Any]) -> str:
        """A type in words."""
        schema = self._resolved(schema)
        if "enum" in schema:
            return ", ".join(f"`{value}`" for value in schema["enum"])
        if "anyOf" in schema:
            return ", or ".join(self._kind(each) for each in schema["anyOf"] if each != {"type": "null"})
        if "oneOf" in schema:
            return "block"
        kind: str = schema["type"]
        if kind == "array":
            return f"list of {self._kind(schema['items'])}s"
        name = {"string": "text", "integer": "number", "boolean": "`true` or `false`"}.get(kind, kind)
        unit = " characters" if kind == "string" else ""
        least, most = schema.get("minLength", schema.get("minimum")), schema.get("maxLength", schema.get("maximum"))
        if most is None or most > _TOO_LARGE_TO_TELL:
            return name
        return f"{name}, {least:,} to {most:,}{unit}" if least else f"{name}, at most {most:,}{unit}"


def _codes(status: str, response: Mapping[str, Any]) -> str:
    """The codes of a refusal, but for those that every call may meet."""
    if status in _WITH_EVERY_CALL:
        return ""
    names = response["content"]["application/json"]["examples"]
    return ", ".join(f"{status} `{name}`" for name in names)


def _usual(schema: Mapping[str, Any]) -> str:
    return f"; {schema['default']:,} when it is left out" if schema.get("default") else ""


def _errors() -> str:
    whens: dict[tuple[str, int], list[str]] = {}
    for refusal in REFUSALS:
        whens.setdefault((refusal.code, refusal.status), []).append(refusal.when)
    rows = [(f"`{code}`", str(status), "; ".join(when)) for (code, status), when in whens.items()]
    return _table(("code", "status", "when"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # A bar inside a cell would end it.
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (head, *rows)]
    first, *others = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([first.replace("|  |", "| |"), "|" + "---|" * len(head), *others])


def http_page() -> str:
    """What ``docs/http.md`` must be."""
    document = make_document(Features(auth=True, replay=True, metrics=True), title="An app")
    return Page(document).render((DOCS / "http.template").read_text(encoding="utf-8"))


if __name__ == "__main__":
    (DOCS / "http.md").write_text(http_page(), encoding="utf-8")
