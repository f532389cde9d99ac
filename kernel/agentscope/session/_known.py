"""What a process knows of a stored session, so that a turn reads and writes no more than what is new."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from agentscope.module import TrackedList
from agentscope.session._json import pointed_at
from agentscope.session._port import NEVER_SAVED, Revision

OUTDATED: Final = Revision(-1, 0)
"""That of a session of which nothing is known any more but when it was made."""


@dataclass(slots=True)
class KnownList:
    """A tracked list as it is stored: as the module's own kind of list, or as JSON texts while no module needs it.

    ``rewritten`` is the fencing number of the save that last changed what was there before it. ``items`` is None when
    it was not read.
    """

    rewritten: int
    items: TrackedList | list[str] | None

    def states(self) -> list[Any]:
        """The items as JSON values."""
        if isinstance(self.items, list):
            return [orjson.loads(text) for text in self.items]
        return [] if self.items is None else list(self.items.states())


@dataclass(slots=True)
class KnownModule:
    """A module as it is stored: its head, and its tracked lists by JSON pointer."""

    state: str
    lists: dict[str, KnownList] = field(default_factory=dict[str, KnownList])

    def as_json(self) -> Any:
        """The whole state as JSON values."""
        return self.to_load({})

    def to_load(self, wanted: Mapping[str, TrackedList]) -> Any:
        """The state for a module: its tracked lists as it wants them, the others as plain lists."""
        state = orjson.loads(self.state)
        for pointer, known in self.lists.items():
            around, key = pointed_at(state, pointer)
            tracked = pointer in wanted and type(known.items) is type(wanted[pointer])
            around[key] = known.items if tracked else known.states()
        return state


@dataclass(slots=True)
class KnownSession:
    """A session as it is stored at ``revision``: its modules by name, None for one that it does not have.

    ``created_at`` is None for one that does not exist. ``complete`` says that there are no other modules, ``origin``
    which store it is in, ``owner`` whose it is, None where that is nobody's.
    """

    revision: Revision = NEVER_SAVED
    created_at: datetime | None = None
    modules: dict[str, KnownModule | None] = field(default_factory=dict[str, KnownModule | None])
    complete: bool = False
    origin: object = None
    owner: str | None = None

    @property
    def exists(self) -> bool:
        """Whether it was ever saved."""
        return self.revision != NEVER_SAVED

    def may_be_earlier(self, later: "KnownSession") -> bool:
        """Whether this is the same session as another that was read later, and not one that had its id before."""
        return later.exists and self.created_at == later.created_at


class StoredState(Mapping[str, Any]):
    """The stored state by module name, read-only. Each value is decoded afresh when it is asked for."""

    def __init__(self, modules: Mapping[str, KnownModule]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> Any:
        return self._modules[name].as_json()

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __repr__(self) -> str:
        return f"StoredState({', '.join(self._modules)})"
