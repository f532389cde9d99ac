"""Copies of state: one for each session, one to go back to, one for a reader who may not change it."""

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType, NoneType
from typing import Any, Final, NoReturn, Protocol, Self, SupportsIndex, cast

from agentscope.errors import OutsideInvocationError

UNCHANGING: Final = frozenset(
    {NoneType, bool, int, float, complex, str, bytes, frozenset, range, type, MappingProxyType}
)
"""Types whose values need no copy. A ``MappingProxyType`` is for maps that are replaced, never changed."""


class Forkable(Protocol):
    """A value that knows a cheaper way to be copied than ``copy.deepcopy``."""

    def fork(self) -> Self:
        """An equal value; a change to either does not show in the other."""
        ...


def seal(value: Any) -> None:
    """Tell a value of state that sessions begin with it: forks of it must share nothing that they add to."""
    if hasattr(cast("type[object]", type(value)), "seal"):
        value.seal()


class Forking(dict[int, Any]):
    """The memo of a copy of state, in which modules stand for themselves: each has a state of its own."""


def fork(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """A copy of a value of state; with the same memo, what is the same object in two values stays the same in both."""
    memo = Forking() if memo is None else memo
    if type(value) in UNCHANGING:
        return memo.get(id(value), value)
    # Not by `isinstance`, which takes five microseconds with a protocol.
    if hasattr(cast("type[object]", type(value)), "fork"):
        return cast("Forkable", value).fork()
    return copy.deepcopy(value, memo)


def forked(values: Mapping[str, Any], memo: dict[int, Any] | None = None) -> dict[str, Any]:
    """Copies of several values. What one raises says which it was."""
    memo = Forking() if memo is None else memo
    copies: dict[str, Any] = {}
    for name, value in values.items():
        try:
            copies[name] = fork(value, memo)
        except Exception as error:
            error.add_note(f"each session gets a copy of {name!r}, which holds a {type(value).__name__}")
            raise
    return copies


def read_only(value: Any) -> Any:
    """A value to look at: a list, dictionary or set raises when it is changed; of any other object it is a copy."""
    copy_of = _READ_ONLY.get(cast("type[object]", type(value)))
    return fork(value) if copy_of is None else copy_of(value)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise OutsideInvocationError("a list, dictionary or set of a StateModule")


# They stay lists, dictionaries and sets, so that whoever only reads notices nothing; their copies are ordinary.


class _ReadOnlyList(list[Any]):
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type, tuple[Any, ...]]:
        return list, (list(self),)


class _ReadOnlyDict(dict[Any, Any]):
    clear = pop = popitem = setdefault = update = _refuse
    __setitem__ = __delitem__ = __ior__ = _refuse

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type, tuple[Any, ...]]:
        return dict, (dict(self),)


class _ReadOnlySet(set[Any]):
    add = clear = discard = pop = remove = update = _refuse
    difference_update = intersection_update = symmetric_difference_update = _refuse
    __iand__ = __ior__ = __isub__ = __ixor__ = _refuse

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type, tuple[Any, ...]]:
        return set, (set(self),)

    def __repr__(self) -> str:
        return repr(set(self))


_READ_ONLY: Final[dict[type, Callable[[Any], Any]]] = {
    list: lambda value: _ReadOnlyList(map(read_only, value)),
    dict: lambda value: _ReadOnlyDict((key, read_only(item)) for key, item in value.items()),
    set: _ReadOnlySet,
}
