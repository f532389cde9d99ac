"""When a module is made: what its ``__init__`` leaves is its template, also when that runs in a session."""

from collections.abc import Callable
from functools import wraps
from threading import local
from typing import Any, Final

from agentscope.module._scope import ModuleState, state_of


class _Construction(local):
    """The modules that are being made in this thread: the outermost, and those that are made in its ``__init__``."""

    states: list[ModuleState] | None = None


_construction = _Construction()
_MARK: Final = "makes_template"


def building(init: Callable[..., None]) -> Callable[..., None]:
    """An ``__init__`` in which a module, and the modules made for it, are filled and not a session.

    A parent goes on to fill its children after their own ``__init__``: they are made when it is.
    """

    @wraps(init)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        state = state_of(self)
        if state.building or state.made:
            # Its base's, or one that is called again as an ordinary method.
            init(self, *args, **kwargs)
            return
        state.building = True
        if _construction.states is not None:
            _construction.states.append(state)
            init(self, *args, **kwargs)
            return
        states = _construction.states = [state]
        try:
            init(self, *args, **kwargs)
        finally:
            _construction.states = None
            for made in states:
                made.finish()

    vars(build)[_MARK] = True
    return build


def is_building(init: Callable[..., None]) -> bool:
    """Whether that is such an ``__init__``."""
    return hasattr(init, _MARK)
