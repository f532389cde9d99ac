"""The second port of a module with state: lists that know what has changed in them since they were last saved."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, Self, TypeGuard, cast


class TrackedList(Protocol):
    """A list in a module's state, as it was when it was asked for; it does not change.

    A session store keeps the items of such a list one by one, and a save writes the new ones alone.
    """

    def __len__(self) -> int:
        """How many items there are."""
        ...

    def unchanged(self, earlier: Any) -> int:
        """How many items at the beginning are the same as in ``earlier``, another list of this type.

        It may say fewer than there are, never more. It has to be cheap where this one only grew from the other.
        """
        ...

    def states(self, start: int = 0) -> Iterator[Any]:
        """The items from position ``start`` on, as JSON values."""
        ...

    def spliced(self, start: int, states: Iterable[Any]) -> Self:
        """Another list: the first ``start`` items of this one, then those of these JSON values."""
        ...


class Tracked(Protocol):
    """A module that has tracked lists in its state."""

    def tracked_state(self) -> Mapping[str, Any]:
        """The state as of ``state_dict``, with a ``TrackedList`` in the place of each list that is tracked.

        ``load_state_dict`` takes over such a state, too.
        """
        ...

    def tracked_lists(self) -> Mapping[str, TrackedList]:
        """The tracked lists alone, by JSON pointer (RFC 6901) into the state."""
        ...


def is_tracked_list(value: object) -> TypeGuard[TrackedList]:
    """Whether that is a tracked list."""
    # Not by `isinstance`, which takes five microseconds with a protocol: this is asked for every value.
    return hasattr(type(value), "spliced")


def tracked_state(module: Any) -> Mapping[str, Any]:
    """The state of a module, with its tracked lists if it has any."""
    return cast("Mapping[str, Any]", module.tracked_state() if _is_tracked(module) else module.state_dict())


def tracked_lists(module: Any) -> Mapping[str, TrackedList]:
    """The tracked lists of a module by JSON pointer; none for a module that has none."""
    return cast("Mapping[str, TrackedList]", module.tracked_lists()) if _is_tracked(module) else {}


def _is_tracked(module: object) -> bool:
    # What a more derived class defines counts: one that adds to `state_dict` alone, or reads the state by itself in
    # `load_state_dict`, knows plain lists only.
    for cls in type(module).__mro__:
        names = vars(cls)
        if "tracked_state" in names:
            return True
        if "state_dict" in names or "load_state_dict" in names:
            return False
    return False
