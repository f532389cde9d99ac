"""``StateModule``: an object whose state a session can save, restore and keep apart from every other session."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import getattr_static
from typing import Any, Final, NamedTuple, Self, cast

from agentscope.errors import StateMismatchError
from agentscope.module._copies import fork
from agentscope.module._local import SessionLocal
from agentscope.module._scope import ModuleState, state_of

_ABSENT: Final[Any] = object()


class _Registered(NamedTuple):
    to_json: Callable[[Any], Any] | None
    from_json: Callable[[Any], Any] | None


class StateModule:
    """The base of a memory, a toolkit, an agent, and of modules of one's own, as in AgentScope v1.

    Its state is what ``register_state`` names, with the states of the modules that are assigned to its attributes.
    Registered attributes are session-local: one object serves every session, and each session sees its own values.
    All other attributes are ordinary, shared by all sessions: what is configured once, and never changes.
    """

    _children: dict[str, None]
    _registered: dict[str, _Registered]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the place of the state, so that a subclass may assign before it calls this class's ``__init__``."""
        module = super().__new__(cls)
        vars(module).update(_session_state=ModuleState(), _children={}, _registered={})
        return module

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _building(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        """A module without state."""

    def register_state(
        self,
        attr_name: str,
        to_json: Callable[[Any], Any] | None = None,
        from_json: Callable[[Any], Any] | None = None,
    ) -> None:
        """Make an attribute part of the state, and session-local.

        ``to_json`` turns its value into JSON values when it is saved, ``from_json`` turns these back; None means that
        it holds JSON values already. Raises ``AttributeError`` when the attribute has no value yet, ``TypeError`` for
        a property, and ``ValueError`` for a child module, which is saved anyway.
        """
        if attr_name in self._children:
            raise ValueError(f"{type(self).__name__}.{attr_name} is a module: its state is saved with this one's")
        declared = getattr_static(type(self), attr_name, _ABSENT)
        if isinstance(declared, property):
            raise TypeError(f"{type(self).__name__}.{attr_name} is a property: register the attribute behind it")
        value = getattr(self, attr_name)
        if not isinstance(declared, SessionLocal):
            # On the class, because only there Python asks it first; other instances keep what they have.
            setattr(type(self), attr_name, SessionLocal[Any](attr_name, declared))
        if attr_name in vars(self) or attr_name not in state_of(self).own:
            # A class's default is shared by its instances, their state is not.
            own = vars(self).pop(attr_name, _ABSENT)
            state_of(self).own[attr_name] = fork(value) if own is _ABSENT else own
        self._registered[attr_name] = _Registered(to_json, from_json)

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values: of each child module, and of each registered attribute, by attribute name."""
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self._children}
        for name, registered in self._registered.items():
            value = getattr(self, name)
            state[name] = fork(value) if registered.to_json is None else registered.to_json(value)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Take over a state that ``state_dict`` gave.

        What is missing from it raises ``StateMismatchError`` when ``strict`` is true, and keeps its value otherwise.
        """
        if not isinstance(state_dict, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from a store
            raise StateMismatchError(type(self).__name__, f"it is a {type(state_dict).__name__}, not an object")
        missing = [name for name in (*self._children, *self._registered) if name not in state_dict]
        if missing and strict:
            raise StateMismatchError(type(self).__name__, f"it has no {', '.join(missing)}")
        values: dict[str, Any] = {}
        for name, registered in self._registered.items():
            if name in state_dict:
                stored = state_dict[name]
                values[name] = fork(stored) if registered.from_json is None else registered.from_json(stored)
        for name in self._children:
            if name in state_dict:
                getattr(self, name).load_state_dict(state_dict[name], strict)
        # Last, so that a child or a conversion that fails leaves this module as it was.
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, StateModule):
            self._children[name] = None
        elif name in self._children:
            del self._children[name]
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._children.pop(name, None)
        super().__delattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        """For copies: what this module holds here and now, which is what the copy starts from."""
        here = {name: getattr(self, name) for name in state_of(self).own}
        others = {name: value for name, value in vars(self).items() if name != "_session_state"}
        others |= {"_children": self._children.copy(), "_registered": self._registered.copy()}
        return {"state": here, "attributes": others}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(cast("dict[str, Any]", state["attributes"]))
        state_of(self).own.update(state["state"])


def _building(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def building(self: StateModule, *args: Any, **kwargs: Any) -> None:
        state = state_of(self)
        if state.building:
            init(self, *args, **kwargs)
            return
        state.building = True
        try:
            init(self, *args, **kwargs)
        finally:
            state.building = False

    return building
