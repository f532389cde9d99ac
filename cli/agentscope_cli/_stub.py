"""The type stub of ``agentscope.runtime`` in which ``runtime.models`` has a project's slots."""

import ast
import inspect
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Final

import agentscope
import agentscope.runtime
from agentscope.errors import UserError
from agentscope.runtime import ModelHandle, ModelSlots, runtime

MAIN_FILE: Final = Path("agentscope", "runtime", "__init__.pyi")
"""The stub itself, below the folder of stubs."""

_MARK: Final = "# Made by `agentscope types`"
_HEAD: Final = f"{_MARK} from the model slots of agentapp.yaml, and overwritten by it."

# The base answers to every attribute: None takes that away, and the checkers are told that it is meant.
_MODELS: Final = """\
# mypy: disable-error-code="assignment, misc, override"
# pyright: reportImplicitOverride=false, reportIncompatibleMethodOverride=false
# ruff: noqa
# fmt: off
from collections.abc import ItemsView as _ItemsView, Iterator as _Iterator, KeysView as _KeysView
from typing import {typing}

from {handle.__module__} import {handle.__name__} as _ModelHandle
from {slots.__module__} import {slots.__name__} as _AnySlots
from {proxy.__module__} import {proxy.__name__} as _RuntimeProxy
{imports}

__all__ = [{names}]

_Slot: _TypeAlias = {slot}

class _ModelSlots(_AnySlots):
    __getattr__: None
{attributes}
    def __getitem__(self, slot: _Slot) -> _ModelHandle: ...
    def __iter__(self) -> _Iterator[_Slot]: ...
    def keys(self) -> _KeysView[_Slot]: ...
    def items(self) -> _ItemsView[_Slot, _ModelHandle]: ...

class _Runtime(_RuntimeProxy):
    @property
    def models(self) -> _ModelSlots: ...

runtime: _Runtime
"""
# In the body of a class these would mean the slot.
_OWN_NAMES: Final = frozenset({"_Final", "_ItemsView", "_Iterator", "_KeysView", "_ModelHandle", "_Slot"})


def stub_files(slots: Sequence[str]) -> dict[Path, str]:
    """The stub's files for a project with these slots: path below the folder of stubs, and text."""
    attributes = [f"    {slot}: _Final[_ModelHandle]" for slot in slots if is_attribute(slot)]
    names: Sequence[str] = agentscope.runtime.__all__
    # What is imported and not used is an error to a strict checker.
    typing = ["TypeAlias", "Literal" if slots else "Never", *(["Final"] if attributes else [])]
    text = _MODELS.format(
        typing=", ".join(f"{name} as _{name}" for name in typing),
        handle=ModelHandle,
        slots=ModelSlots,
        proxy=type(runtime),
        imports="\n".join(_declarations(agentscope.runtime, {*names} - {"runtime"})),
        names=", ".join(map(json.dumps, names)),
        slot=f"_Literal[{', '.join(map(json.dumps, slots))}]" if slots else "_Never",
        attributes="\n".join(attributes),
    )
    # mypy looks for a package only where its parent is one, too.
    parent = "\n".join(_declarations(agentscope, {*agentscope.__all__}))
    return {
        MAIN_FILE: f"{_HEAD}\n{text}",
        Path("agentscope", "__init__.pyi"): f"{_HEAD}\n# ruff: noqa\n# fmt: off\n{parent}\n",
    }


def is_attribute(slot: str) -> bool:
    """Whether a slot is reached as ``runtime.models.<slot>``, and not by ``runtime.models["<slot>"]`` alone."""
    taken = iskeyword(slot) or slot.startswith("__") or slot in _OWN_NAMES
    return slot.isidentifier() and not taken and slot not in dir(ModelSlots({}))


def has_stub(folder: Path) -> bool:
    """Whether the folder holds a stub of this program's, of whatever slots."""
    try:
        return _text_of(folder / MAIN_FILE) is not None
    except UserError:
        return False


def outdated_files(folder: Path, files: Mapping[Path, str]) -> list[Path]:
    """Which of the files are not in the folder, or have another text.

    Raises ``UserError`` when one of them is there and was not made by this program, or can't be read.
    """
    return [path for path, text in files.items() if _text_of(folder / path) != text]


def write_files(folder: Path, files: Mapping[Path, str], paths: Iterable[Path]) -> None:
    """Write these of the files, each as a whole. Raises ``UserError`` when that can't be done."""
    for path in paths:
        target = folder / path
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(files[path], encoding="utf-8")
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{target} can't be written: {(error.strerror or '').lower()}") from error


def _text_of(file: Path) -> str | None:
    """The text of a file of this program's; None when there is none."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file} can't be read: {(error.strerror or '').lower()}") from error
    if not text.startswith(_MARK):
        raise UserError(f"{file} was not made by `agentscope types` and stays as it is: move it away, or delete it")
    return text


def _declarations(module: ModuleType, names: Iterable[str]) -> Iterator[str]:
    """What a stub says of a package's names: where each is imported from, or a constant's type."""
    imported = {
        alias.asname or alias.name: f"from {node.module} import {alias.name}"
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name in sorted(names):
        if name in imported:
            yield f"{imported[name]} as {name}"
        elif isinstance(value := getattr(module, name), str | int | float):
            yield f"{name}: {type(value).__name__}"
        else:
            raise LookupError(
                f"{module.__name__}.{name} is neither imported there nor a constant: a stub can't have it"
            )
