"""From what is written to what is meant: ``${VAR}``, secrets that are in files, the vendors' own key variables."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentscope.runtime.settings._nodes import UNUSABLE, Node, join
from agentscope.runtime.settings._problems import Report, Source
from agentscope.runtime.settings._shape import Annotation, Form, below, shape_of
from agentscope.runtime.settings._variables import Variables

# Two groups: the escape `$${`, or what stands between the braces, which may never be closed.
_REFERENCE: Final = re.compile(r"(\$\$\{)|\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST_SECRET: Final = 64 * 1024

_KEY_VARIABLES: Final = (
    ("openai", ("OPENAI_API_KEY",)),
    ("anthropic", ("ANTHROPIC_API_KEY",)),
    ("dashscope", ("DASHSCOPE_API_KEY",)),
    ("gemini", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
)


def interpolate(node: Node, variables: Variables, report: Report, path: str = "") -> None:
    """Replace ``${VAR}`` in every text below ``node`` that is written in the file."""
    match node.value:
        case dict() as children:
            for child in children.values():
                interpolate(child, variables, report, join(path, child.spelled))
        case list() as items:
            for item in items:
                interpolate(item, variables, report, join(path, item.spelled))
        case str() as text if node.origin.source is Source.FILE and "${" in text:
            wrong = _wrong_reference(text, variables)
            if wrong is None:
                node.value = _REFERENCE.sub(lambda found: _replacement(found, variables), text)
            else:
                report.add(node.origin, path, wrong)
                node.value = UNUSABLE
        case _:
            pass


def _wrong_reference(text: str, variables: Variables) -> str | None:
    """What is wrong with the references in ``text``, without quoting what may be a default value in it."""
    unset: dict[str, None] = {}
    for found in _REFERENCE.finditer(text):
        escape, name, closed = found.groups()
        if escape:
            continue
        if not closed:
            return "${ without its }; write $${ for a literal ${"
        if not _VARIABLE.fullmatch(name):
            variable = _VARIABLE.match(name)
            if variable is None:
                return "${…} must hold the name of a variable; write $${…} for a literal ${…}"
            known = variable.group()
            return f"${{{known}…}}: only ${{{known}}} is read; a default belongs in the file, in place of the variable"
        if variables.get(name) is None:
            unset[name] = None
    if not unset:
        return None
    if len(unset) == 1:
        return f"environment variable {next(iter(unset))} is not set; export it or add it to .env"
    return f"environment variables {', '.join(unset)} are not set; export them or add them to .env"


def _replacement(found: re.Match[str], variables: Variables) -> str:
    variable = variables.get(found.group(2) or "")
    return "${" if variable is None else variable.value


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """Where the files of secrets are, and what stands for one that isn't there; None means that it is a problem."""

    folder: Path
    absent: str | None
    report: Report


def read_secrets(node: Node, annotation: Annotation, files: SecretFiles, path: str = "") -> None:
    """Put the text of its file in the place of every secret that names one."""
    shape = shape_of(annotation)
    match node.value:
        case dict() as children if shape.form is Form.SECRET:
            _read_secret(node, children.get("file"), files, path)
        case dict() as children:
            for key, child in children.items():
                if shape.form is not Form.ANYTHING:
                    read_secrets(child, below(shape, key), files, join(path, child.spelled))
        case list() as items if shape.form is Form.SEQUENCE:
            for item in items:
                read_secrets(item, shape.item, files, join(path, item.spelled))
        case _:
            pass


def _read_secret(node: Node, file: Node | None, files: SecretFiles, path: str) -> None:
    report = files.report
    node.value = UNUSABLE
    if file is None:
        report.add(node.key_origin, path, "must be a text, or {file: PATH}")
        return
    if file.value is UNUSABLE:
        return
    if not isinstance(file.value, str) or not file.value or "\0" in file.value:
        report.add(file.origin, join(path, file.spelled), "must be the path of a file")
        return
    try:
        with (files.folder / file.value).open("rb") as stream:
            content = stream.read(_LARGEST_SECRET + 1)
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and files.absent is not None:
            node.value = files.absent
            return
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "not UTF-8 text"
        report.add(file.origin, path, f"the secret's file {file.value} can't be read: {reason}; mend it or its path")
        return
    # One only: a text file ends with a line break, and more of them are the secret's.
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        report.add(file.origin, path, f"the secret's file {file.value} is empty")
    elif len(content) > _LARGEST_SECRET:
        report.add(file.origin, path, f"the secret's file {file.value} is larger than {_LARGEST_SECRET} bytes")
    else:
        node.value = text
        node.origin = file.origin


def fill_keys(root: Node, variables: Variables) -> None:
    """Give each slot without an ``api_key`` its vendor's, if the variable is set. An explicit null means no key.

    A slot that finds none and says ``offline_without_key`` gets the offline model.
    """
    models = root.value.get("models") if isinstance(root.value, dict) else None
    for slot in models.value.values() if models is not None and isinstance(models.value, dict) else ():
        if not isinstance(slot.value, dict) or "api_key" in slot.value:
            continue
        provider = slot.value.get("provider")
        names = next((names for vendor, names in _KEY_VARIABLES if provider and provider.value == vendor), ())
        found = next((found for found in map(variables.get, names) if found is not None and found.value), None)
        if found is not None:
            slot.value["api_key"] = Node(found.value, found.origin, found.origin, "api_key")
        elif names and (offline := slot.value.get("offline_without_key")) and offline.value in (True, "true"):
            slot.value["provider"] = Node("offline", offline.origin, offline.origin, "provider")
