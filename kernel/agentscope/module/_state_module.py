"""``StateModule``: an object whose state a session can save, restore and keep apart from every other session."""

import copy
from collections.abc import Callable, Mapping
from inspect import getattr_static
from typing import Any, Final, NamedTuple, Self, cast

from agentscope.errors import StateMismatchError
from agentscope.module._building import building, is_building
from agentscope.module._copies import Forking, fork
from agentscope.module._local import SessionLocal, localize
from agentscope.module._scope import ModuleState, state_of
from agentscope.module._tracked import TrackedList, tracked_lists, tracked_state
from agentscope.module._twins import copies_of, fill

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
        init: Callable[..., None] = cls.__init__
        if not is_building(init):
            # Only now: a dataclass's is written after the class was made, and another base may have the first one.
            cls.__init__ = building(init)  # type: ignore[method-assign]
        module = super().__new__(cls)
        vars(module).update(_session_state=ModuleState(), _children={}, _registered={})
        return module

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
        a property or a slot, and ``ValueError`` for a child module, which is saved anyway.
        """
        if attr_name in self._children:
            raise ValueError(f"{type(self).__name__}.{attr_name} is a module: its state is saved with this one's")
        declared: object = getattr_static(type(self), attr_name, _ABSENT)
        if hasattr(type(declared), "__set__") and not isinstance(declared, SessionLocal):
            raise TypeError(
                f"{type(self).__name__}.{attr_name} is a property or a slot: register the attribute behind it"
            )
        value, own = getattr(self, attr_name), state_of(self).own
        localize(type(self), attr_name)
        if attr_name in vars(self):
            own[attr_name] = vars(self).pop(attr_name)
        elif attr_name not in own:
            # A class's default is shared by its instances, their state is not.
            own[attr_name] = fork(value)
        self._registered[attr_name] = _Registered(to_json, from_json)

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values: of each child module, and of each registered attribute, by attribute name."""
        return self._state(lambda child: child.state_dict())

    def tracked_state(self) -> dict[str, Any]:
        """``state_dict``, with the tracked lists of the child modules as they are. See ``Tracked``."""
        return self._state(tracked_state)

    def tracked_lists(self) -> dict[str, TrackedList]:
        """Those lists by JSON pointer. See ``Tracked``."""
        return {
            f"/{name}{pointer}": tracked
            for name in self._children
            for pointer, tracked in tracked_lists(getattr(self, name)).items()
        }

    def _state(self, state_of_child: Callable[["StateModule"], Mapping[str, Any]]) -> dict[str, Any]:
        state: dict[str, Any] = {name: state_of_child(getattr(self, name)) for name in self._children}
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
        if isinstance(value, StateModule) and not self._is_local(name):
            self._children[name] = None
        elif name in self._children:
            del self._children[name]
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._children.pop(name, None)
        super().__delattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        """For copies: what this module holds here and now.

        A copy made in an invocation starts other sessions with what this module starts them with.
        """
        here, template = copies_of(state_of(self))
        attributes = {name: value for name, value in vars(self).items() if name != "_session_state"}
        attributes |= {"_children": self._children.copy(), "_registered": self._registered.copy()}
        return {"state": here, "template": template, "attributes": attributes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(cast("dict[str, Any]", state["attributes"]))
        for name in self._registered:
            localize(type(self), name)
        fill(state_of(self), state["state"], state["template"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self if isinstance(memo, Forking) else self._twin(memo)

    def _twin(self, memo: dict[int, Any]) -> Self:
        """A deep copy of this module."""
        twin = memo[id(self)] = type(self).__new__(type(self))
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def _is_local(self, name: str) -> bool:
        declared = getattr_static(type(self), name, None)
        return isinstance(declared, SessionLocal) and declared.covers(self)


def child_modules(module: StateModule) -> list[StateModule]:
    """The modules that are assigned to the module's attributes: their states are part of its own."""
    return [getattr(module, name) for name in module._children]  # pyright: ignore[reportPrivateUsage]
