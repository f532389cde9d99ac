"""``session.auto_save``: which modules of an app are loaded before and saved after each invocation."""

from collections.abc import Iterator, Mapping
from typing import cast

from agentscope.module import StateModule, child_modules
from agentscope.runtime._app import AgentApp


def find_state_modules(app: AgentApp) -> dict[str, StateModule]:
    """The modules on an app's attributes, by attribute name; ``agents.0`` or ``agents.planner`` inside a collection.

    One that is part of another is saved with that one, and not by itself.
    """
    found: dict[str, StateModule] = {}
    for name, value in vars(app).items():
        for key, module in _modules_in(value):
            found[f"{name}{key}"] = module
    parts = set[int]()
    for name, module in found.items():
        of_module = set[int]()
        _add_parts(module, of_module)
        if id(module) in of_module:
            raise TypeError(
                f"{type(app).__name__}.{name} is part of itself: two modules hold each other, and no state ends"
            )
        parts |= of_module
    return {name: module for name, module in found.items() if id(module) not in parts}


def _modules_in(value: object) -> Iterator[tuple[str, StateModule]]:
    if isinstance(value, StateModule):
        yield "", value
        return
    if isinstance(value, Mapping):
        items = list(cast("Mapping[object, object]", value).items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(cast("list[object]", value)))
    else:
        return
    for key, item in items:
        if isinstance(item, StateModule):
            # Names are texts, and 1 and "1" are two keys.
            yield f".{key}" if isinstance(key, str) or not isinstance(value, Mapping) else f"[{key!r}]", item


def _add_parts(module: StateModule, parts: set[int]) -> None:
    for child in child_modules(module):
        if id(child) not in parts:
            parts.add(id(child))
            _add_parts(child, parts)
