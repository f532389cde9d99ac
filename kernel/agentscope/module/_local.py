"""``SessionLocal``: an attribute of a module that has a value of its own in every session."""

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

    def __init__(self, name: str = "", default: Any = _ABSENT) -> None:
        self._name = name
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, module: None, owner: type) -> Self: ...
    @overload
    def __get__(self, module: object, owner: type | None = None) -> _T: ...
    def __get__(self, module: object | None, owner: type | None = None) -> Self | _T:
        if module is None:
            return self
        name, state = self._name, state_of(module)
        own = state.own.get(name, _ABSENT)
        invocation = current_invocation.get()
        if invocation is None or state.building:
            if own is _ABSENT:
                return self._elsewhere(module)
            return cast("_T", read_only(own) if state.is_guarded else own)
        scope = invocation.scope
        if type(own) in UNCHANGING and scope not in state.cells:
            # Most sessions never change most attributes: these take no room.
            return cast("_T", own)
        values = scope.open(state).values
        if name not in values:
            if own is _ABSENT:
                return self._elsewhere(module)
            values[name] = fork(own)
        return cast("_T", values[name])

    def __set__(self, module: object, value: _T) -> None:
        state = state_of(module)
        invocation = current_invocation.get()
        if invocation is not None and not state.building:
            invocation.scope.open(state).values[self._name] = value
        elif state.is_guarded:
            raise OutsideInvocationError(f"{type(module).__name__}.{self._name}")
        else:
            state.own[self._name] = value

    def __delete__(self, module: object) -> None:
        raise AttributeError(f"{type(module).__name__}.{self._name} is session-local state: set it, don't delete it")

    def _elsewhere(self, module: object) -> _T:
        # An instance that never registered the attribute which another instance of its class made session-local.
        value = vars(module).get(self._name, self._default)
        if value is _ABSENT:
            raise AttributeError(f"{type(module).__name__!r} object has no attribute {self._name!r}", name=self._name)
        return cast("_T", value)
