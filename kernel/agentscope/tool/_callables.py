"""What can be read off a callable: a function, a method, a partial, a class, or an object with ``__call__``."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from docstring_parser import parse


def underlying(func: Callable[..., Any]) -> Any:
    """The function that has the annotations."""
    func = without_partial(func)
    if isinstance(func, type):
        return func.__init__  # type: ignore[misc]
    return func if _is_plain(func) else type(func).__call__


def without_partial(func: Callable[..., Any]) -> Callable[..., Any]:
    """What a ``functools.partial`` will call."""
    while isinstance(func, partial):
        func = func.func
    return func


def bound_names(func: Callable[..., Any]) -> frozenset[str]:
    """The keyword arguments that a ``functools.partial`` fills."""
    return frozenset[str](func.keywords) if isinstance(func, partial) else frozenset[str]()


def is_async(func: Callable[..., Any]) -> bool:
    """Whether calling it runs nothing yet, and gives a coroutine or an async generator."""
    func = without_partial(func)
    return any(
        inspect.iscoroutinefunction(what) or inspect.isasyncgenfunction(what) for what in (func, type(func).__call__)
    )


def name_of(func: Callable[..., Any]) -> str:
    """The name of the function, or of the class that makes an object callable."""
    func = without_partial(func)
    return getattr(func, "__name__", None) or type(func).__name__


@dataclass(frozen=True, slots=True)
class Documentation:
    """What a docstring says: about the function, and about its parameters by name; "" and {} when there is none."""

    description: str
    parameters: dict[str, str]


def documentation(func: Callable[..., Any], *, include_long_description: bool) -> Documentation:
    """Read the docstring: Google's, numpy's or reST's form, with v1's types in backticks or without."""
    parsed = parse(_docstring(without_partial(func)))
    parts = [parsed.short_description, parsed.long_description if include_long_description else None]
    described = {entry.arg_name.lstrip("*"): entry.description for entry in parsed.params if entry.description}
    return Documentation("\n".join(part for part in parts if part), described)


def _docstring(func: Callable[..., Any]) -> str:
    if isinstance(func, type) or _is_plain(func):
        return inspect.getdoc(func) or ""
    # `getdoc` would give the docstring of `type.__call__` to a method that has none.
    return inspect.cleandoc(type(func).__call__.__doc__ or type(func).__doc__ or "")


def _is_plain(func: Callable[..., Any]) -> bool:
    return inspect.isroutine(func) or hasattr(func, "__wrapped__")
