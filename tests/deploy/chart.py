"""Renders the Helm chart, as far as its templates go: helm itself is in no package for this Python.

What a template may use is what is here; anything else is an error, so that no chart passes that was not understood.
"""

import hashlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "agentscope"
RELEASE = {"Name": "shop", "Namespace": "agents", "Service": "Helm"}

# With the white space that `-` takes away.
_ACTION = re.compile(r"(?:\s*\{\{-|\{\{)\s((?:(?!\}\}).)*?)\s(?:-\}\}\s*|\}\})")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[()|]|[^\s()|]+')


class TemplateError(Exception):
    """A template has something that this renderer, or the chart, does not know."""


@dataclass
class Block:
    """A template's text and actions, or what stands between ``if``, ``range`` or ``define`` and its ``end``."""

    keyword: str = ""
    argument: str = ""
    parts: "list[str | Block]" = field(default_factory=list["str | Block"])
    otherwise: "list[str | Block] | None" = None


def values_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The chart's values with changes, as ``--values`` makes them: mappings are merged, all else is replaced."""
    values = cast("dict[str, Any]", yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))
    return _merged(values, changes)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = deepcopy(dict(values))
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value)) if both else value
    return merged


def rendered(changes: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What is sent to Kubernetes with these values: by template, the documents."""
    renderer = Renderer(values_of(changes))
    found: dict[str, list[dict[str, Any]]] = {}
    for template in sorted((CHART / "templates").glob("*.yaml")):
        documents = list(yaml.safe_load_all(renderer.render(template.read_text(encoding="utf-8"))))
        found[template.stem] = [document for document in documents if document is not None]
    return found


class Renderer:
    """Templates with these values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
        about = {"Name": chart["name"], "AppVersion": chart["appVersion"]}
        self._root = {"Values": values, "Release": RELEASE, "Chart": about}
        self._defined: dict[str, Block] = {}
        for helpers in (CHART / "templates").glob("*.tpl"):
            self.render(helpers.read_text(encoding="utf-8"))

    def render(self, text: str) -> str:
        """A template's text. Raises ``TemplateError``."""
        return self._join(_parse(text).parts, self._root)

    def _join(self, parts: "Sequence[str | Block]", dot: Any) -> str:
        return "".join(part if isinstance(part, str) else self._one(part, dot) for part in parts)

    def _one(self, block: Block, dot: Any) -> str:
        if block.keyword == "define":
            self._defined[cast(str, self._value(block.argument, dot))] = block
            return ""
        value = self._value(block.argument, dot)
        if block.keyword == "range":
            return "".join(self._join(block.parts, item) for item in value)
        if block.keyword == "if":
            return self._join(block.parts if value else block.otherwise or [], dot)
        return _text(value)

    def _value(self, expression: str, dot: Any) -> Any:
        tokens = _TOKEN.findall(expression)
        value = self._pipeline(tokens, dot)
        if tokens:
            raise TemplateError(f"too much in {expression!r}: {tokens}")
        return value

    def _pipeline(self, tokens: list[str], dot: Any) -> Any:
        value = self._command(tokens, dot, [])
        while tokens and tokens[0] == "|":
            tokens.pop(0)
            value = self._command(tokens, dot, [value])
        return value

    def _command(self, tokens: list[str], dot: Any, piped: list[Any]) -> Any:
        if tokens[0][0] in '."(' or tokens[0].isdigit():
            return self._operand(tokens, dot)
        name = tokens.pop(0)
        arguments: list[Any] = []
        while tokens and tokens[0] not in "|)":
            arguments.append(self._operand(tokens, dot))
        arguments += piped
        if name == "include":
            return self._join(self._defined[arguments[0]].parts, arguments[1])
        if name not in _FUNCTIONS:
            raise TemplateError(f"no function {name!r}")
        return _FUNCTIONS[name](*arguments)

    def _operand(self, tokens: list[str], dot: Any) -> Any:
        token = tokens.pop(0)
        if token == "(":
            value = self._pipeline(tokens, dot)
            tokens.pop(0)
            return value
        if token.startswith('"'):
            return token[1:-1]
        if token.isdigit():
            return int(token)
        if not token.startswith("."):
            raise TemplateError(f"{token!r} is no operand")
        for name in filter(None, token.split(".")):
            # Helm takes what isn't there for empty; here it is a mistake.
            if name not in dot:
                raise TemplateError(f"{token}: there is no {name!r}")
            dot = dot[name]
        return dot


def _parse(text: str) -> Block:
    root = Block()
    open_blocks = [root]
    place: list[str | Block] = root.parts
    at = 0
    for found in _ACTION.finditer(text):
        place.append(text[at : found.start()])
        at = found.end()
        action = found[1]
        keyword, _, argument = action.partition(" ")
        if keyword == "end":
            open_blocks.pop()
            inner = open_blocks[-1]
            place = inner.parts if inner.otherwise is None else inner.otherwise
        elif keyword == "else":
            open_blocks[-1].otherwise = place = []
        elif keyword in ("if", "range", "define"):
            block = Block(keyword, argument)
            place.append(block)
            open_blocks.append(block)
            place = block.parts
        else:
            place.append(Block("", action))
    place.append(text[at:])
    if len(open_blocks) != 1 or any("{{" in part for part in _texts(root)):
        raise TemplateError("an action is not closed, or is written in a way that is not known here")
    return root


def _texts(block: Block) -> list[str]:
    parts = [*block.parts, *(block.otherwise or [])]
    return [text for part in parts for text in ([part] if isinstance(part, str) else _texts(part))]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quote(value: Any) -> str:
    text = _text(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _nindent(spaces: int, text: str) -> str:
    return "\n" + "\n".join(" " * spaces + line if line else line for line in text.split("\n"))


def _add(*numbers: int) -> int:
    return sum(numbers)


def _default(fallback: Any, value: Any) -> Any:
    return value or fallback


def _index(mapping: Mapping[str, Any], key: str) -> Any:
    return mapping[key]


def _printf(form: str, *values: Any) -> str:
    return form % values


def _sha256sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _to_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=True, width=10_000).removesuffix("\n")


def _trim_suffix(suffix: str, text: str) -> str:
    return text.removesuffix(suffix)


def _trunc(length: int, text: str) -> str:
    return text[:length]


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": _add,
    "default": _default,
    "index": _index,
    "nindent": _nindent,
    "not": operator.not_,
    "printf": _printf,
    "quote": _quote,
    "sha256sum": _sha256sum,
    "toYaml": _to_yaml,
    "trimSuffix": _trim_suffix,
    "trunc": _trunc,
}
