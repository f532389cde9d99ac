"""What a copy of a module starts with: here what the module holds here, elsewhere what it starts others with."""

from collections.abc import Callable
from typing import Any

from agentscope.module._copies import forked
from agentscope.module._scope import ModuleState, Values, current_invocation


def copies_of(state: ModuleState) -> tuple[Values, "Template | None"]:
    """What a copy of a module has here, and what it has elsewhere; None when that is the same."""
    invocation = current_invocation.get()
    if invocation is None or state.building:
        return (forked(state.own) if state.is_guarded else dict(state.own)), None
    values = invocation.scope.open(state).values
    untouched = {name: own for name, own in state.own.items() if name not in values}
    return {**forked(untouched), **values}, Template(state.own)


def fill(state: ModuleState, here: Values, template: "Template | None") -> None:
    """Give a new module what ``copies_of`` gave."""
    state.made = True
    invocation = current_invocation.get()
    if invocation is None or template is None:
        state.own.update(here)
    else:
        state.own.update(forked(template.values))
        invocation.scope.open(state).values.update(here)


class Template:
    """What a module starts its sessions with, on its way to a copy in this process. It is not pickled."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def __deepcopy__(self, memo: dict[int, Any]) -> "Template":
        return Template(forked(self.values, memo))

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()


def _nothing() -> None: ...
