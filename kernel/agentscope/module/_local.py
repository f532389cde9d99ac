"""``SessionLocal``: an attribute of a module that has a value of its own in every session."""

from inspect import getattr_static
from typing import Any, Generic, Self, TypeVar, cast, overload

from agentscope.errors import OutsideInvocationError
from agentscope.module._copies import UNCHANGING, fork, read_only
from agentscope.module._scope import current_invocation, state_of

_T = TypeVar("_T")
_ABSENT: Any = object()


class SessionLocal(Generic[_T]):
    """An attribute of a ``StateModule`` that has a value of its own in every session.

    Inside an invocation it is the session's value, at first a copy of what the module held when it was made.
    Outside, it is the module's own value; while a runtime serves, that one can be read but not changed.
    ``StateModule.register_state`` makes an attribute one of these; written in a class body, it is session-local
    without being saved::

        class Greeter(StateModule):
            greeted: SessionLocal[bool] = SessionLocal()

            def __init__(self) -> None:
                super().__init__()
                self.greeted = False
    """

    def __init__(self, name: str = "") -> None:
        self._name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, module: None, owner: type) -> Self: ...
    @overload
    def __get__(self, module: object, owner: type | None = None) -> _T: ...
    def __get__(self, module: object | None, owner: type | None = None) -> Self | _T:
        if module is None:
            return cast("Self", self._of_class(owner))
        name, state = self._name, state_of(module)
        own = state.own.get(name, _ABSENT)
        if own is _ABSENT and not self.covers(module):
            return cast("_T", self._uncovered(module))
        invocation = current_invocation.get()
        if invocation is None or state.building:
            if own is _ABSENT:
                raise self._missing(type(module))
            return cast("_T", read_only(own) if state.is_guarded else own)
        scope = invocation.scope
        if type(own) in UNCHANGING and scope not in state.cells:
            # Most sessions never change most attributes: these take no room.
            state.join(scope.home)
            return cast("_T", own)
        values = scope.open(state).values
        if name not in values:
            if own is _ABSENT:
                raise self._missing(type(module))
            values[name] = fork(own)
        return cast("_T", values[name])

    def __set__(self, module: object, value: _T) -> None:
        state = state_of(module)
        invocation = current_invocation.get()
        if not self.covers(module):
            vars(module)[self._name] = value
        elif invocation is not None and not state.building:
            invocation.scope.open(state).values[self._name] = value
        elif state.is_guarded:
            raise OutsideInvocationError(f"{type(module).__name__}.{self._name}")
        else:
            state.own[self._name] = value

    def __delete__(self, module: object) -> None:
        if self.covers(module):
            raise AttributeError(
                f"{type(module).__name__}.{self._name} is session-local state: set it, don't delete it"
            )
        if vars(module).pop(self._name, _ABSENT) is _ABSENT:
            raise self._missing(type(module))

    def covers(self, module: object) -> bool:
        """Whether this attribute of this module is session-local."""
        return True

    def _of_class(self, owner: type | None) -> Any:
        return self

    def _uncovered(self, module: object) -> Any:
        raise self._missing(type(module))

    def _missing(self, owner: type | None) -> AttributeError:
        name = "?" if owner is None else owner.__name__
        return AttributeError(f"{name!r} object has no attribute {self._name!r}", name=self._name)


class RegisteredState(SessionLocal[Any]):
    """What ``register_state`` puts in a class, because only there Python asks first.

    To the class, and to an instance that did not register the attribute, it is what it was: ``default`` is what the
    class held in its place.
    """

    def __init__(self, name: str, default: Any) -> None:
        super().__init__(name)
        self._default = default

    def covers(self, module: object) -> bool:
        """Whether this attribute of this module is session-local."""
        return self._name in state_of(module).own

    def _of_class(self, owner: type | None) -> Any:
        return self._bound(None, owner)

    def _uncovered(self, module: object) -> Any:
        there = vars(module).get(self._name, _ABSENT)
        return self._bound(module, type(module)) if there is _ABSENT else there

    def _bound(self, module: object | None, owner: type | None) -> Any:
        if self._default is _ABSENT:
            raise self._missing(owner)
        bind = getattr(cast("type[object]", type(self._default)), "__get__", None)
        return self._default if bind is None else bind(self._default, module, owner)


def localize(cls: type, name: str) -> None:
    """Make an attribute of a class session-local, for the instances that registered it."""
    declared = getattr_static(cls, name, _ABSENT)
    if not isinstance(declared, SessionLocal):
        setattr(cls, name, RegisteredState(name, declared))
