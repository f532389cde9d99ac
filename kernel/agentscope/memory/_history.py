"""The messages of a memory: a list that is cheap to add to, to go back from, and to save."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, Self, cast, overload

from agentscope.errors import StateMismatchError
from agentscope.message import Msg

Marks = tuple[str, ...]
Entry = tuple[Msg, Marks]


class _Log:
    """Entries that several histories share, each a beginning of its own; only added to, unless it is ``sealed``."""

    __slots__ = ("_indexed", "_positions", "_repeated", "entries", "sealed")

    def __init__(self, entries: list[Entry], *, sealed: bool = False) -> None:
        self.entries = entries
        self.sealed = sealed
        self._indexed = 0
        self._positions: dict[str, int] = {}
        self._repeated: dict[str, list[int]] = {}

    def positions(self, msg_id: str) -> Sequence[int]:
        """Where messages of that id are."""
        for position in range(self._indexed, len(self.entries)):
            known = self.entries[position][0].id
            if self._positions.setdefault(known, position) != position:
                self._repeated.setdefault(known, []).append(position)
            self._indexed = position + 1
        first = self._positions.get(msg_id)
        return () if first is None else (first, *self._repeated.get(msg_id, ()))


class History(Sequence[Entry]):
    """Messages with their marks, in order. It is a ``TrackedList``, when it is a fork that nothing is added to.

    A fork shares the entries and remembers how many of them are its own, so that it costs the same for four messages
    as for four thousand. Only adding keeps the entries: every other change makes a new list of them.
    """

    __slots__ = ("_length", "_log")

    def __init__(self, entries: list[Entry] | None = None) -> None:
        self._log = _Log([] if entries is None else entries)
        self._length = len(self._log.entries)

    def fork(self) -> Self:
        """The messages of now, whatever becomes of this history."""
        other = type(self)()
        other._log, other._length = self._log, self._length
        return other

    def seal(self) -> None:
        """Share the entries for reading alone: what sessions begin with must not hold what one of them adds."""
        self._log = _Log(list(self), sealed=True)

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)(list(self))

    def __reduce__(self) -> tuple[type[Self], tuple[list[Entry]]]:
        # Not the entries that others have added.
        return type(self), (list(self),)

    def add(self, msg: Msg, marks: Marks) -> None:
        """Add a message at the end."""
        if len(self._log.entries) != self._length or self._log.sealed:
            # A fork went on from here: what it added is not this history's.
            self._log = _Log(self._log.entries[: self._length])
        self._log.entries.append((msg, marks))
        self._length += 1

    def keep(self, wanted: Callable[[Entry], bool]) -> int:
        """Leave out the entries that are not wanted; return how many these were."""
        entries = [entry for entry in self if wanted(entry)]
        fewer = self._length - len(entries)
        if fewer:
            self._replace(entries)
        return fewer

    def mark(self, change: Callable[[Entry], Marks]) -> int:
        """Give each entry the marks that ``change`` says; return how many have others now."""
        changed = 0
        entries: list[Entry] = []
        for entry in self:
            marks = change(entry)
            if marks != entry[1]:
                entry = (entry[0], marks)
                changed += 1
            entries.append(entry)
        if changed:
            self._replace(entries)
        return changed

    def has(self, msg_id: str) -> bool:
        """Whether a message of that id is there."""
        return any(position < self._length for position in self._log.positions(msg_id))

    def has_same(self, msg: Msg) -> bool:
        """Whether a message is there that has this one's id and says the same."""
        there = [self._log.entries[position][0] for position in self._log.positions(msg.id) if position < self._length]
        return any((known.role, known.name, known.content) == (msg.role, msg.name, msg.content) for known in there)

    def unchanged(self, earlier: Self) -> int:
        """See ``TrackedList``."""
        shorter = min(self._length, earlier._length)
        if self._log is earlier._log:
            return shorter
        # Entries are frozen, and the same one moves from list to list.
        mine, others = islice(self._log.entries, shorter), islice(earlier._log.entries, shorter)
        pairs = zip(count(), mine, others)
        return next((position for position, entry, other in pairs if entry is not other), shorter)

    def states(self, start: int = 0) -> Iterator[Any]:
        """See ``TrackedList``. Each is a pair of the message and its marks, AgentScope v1's form."""
        for msg, marks in self._log.entries[start : self._length]:
            yield [msg.to_dict(), list(marks)]

    def spliced(self, start: int, states: Iterable[Any]) -> Self:
        """See ``TrackedList``. Raises ``StateMismatchError`` for what is no message."""
        other = self.fork() if start == self._length else type(self)(self._log.entries[:start])
        for position, state in enumerate(states, start):
            other.add(*_entry(position, state))
        return other

    def _replace(self, entries: list[Entry]) -> None:
        self._log, self._length = _Log(entries), len(entries)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Entry]:
        return islice(self._log.entries, self._length)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        entries = self._log.entries
        return entries[: self._length][index] if isinstance(index, slice) else entries[self._at(index)]

    def _at(self, index: int) -> int:
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(f"there are {self._length} messages, and no number {index}")
        return at


def _entry(position: int, state: object) -> Entry:
    try:
        if isinstance(state, Mapping):
            # AgentScope v1's older form, where the messages stand alone.
            return Msg.from_dict(cast("Mapping[str, Any]", state)).frozen(), ()
        message, marks = cast("tuple[Mapping[str, Any], list[str]]", state)
        return Msg.from_dict(message).frozen(), tuple(marks)
    except (TypeError, ValueError, KeyError) as error:
        raise StateMismatchError("InMemoryMemory", f"content[{position}] is no message: {error!r}") from error
