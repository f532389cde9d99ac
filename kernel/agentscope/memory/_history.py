"""The messages of a memory: a list that is cheap to add to, and cheap to go back from."""

from collections.abc import Callable, Iterator, Sequence
from typing import Self, overload

from agentscope.message import Msg

Marks = tuple[str, ...]
Entry = tuple[Msg, Marks]


class History(Sequence[Entry]):
    """Messages with their marks, in order.

    A fork shares the list and remembers how much of it is its own, so that it costs the same for four messages as for
    four thousand. Only adding keeps the list: every other change makes a new one.
    """

    __slots__ = ("_entries", "_ids", "_length")

    def __init__(self, entries: list[Entry] | None = None) -> None:
        self._entries: list[Entry] = [] if entries is None else entries
        self._length = len(self._entries)
        self._ids: set[str] | None = None

    def fork(self) -> Self:
        """The messages of now, whatever becomes of this history."""
        other = type(self)()
        other._entries, other._length = self._entries, self._length
        return other

    def __deepcopy__(self, memo: object) -> Self:
        return self.fork()

    def add(self, msg: Msg, marks: Marks) -> None:
        """Add a message at the end."""
        if len(self._entries) != self._length:
            # A fork went on from here: what it added is not this history's.
            self._entries = self._entries[: self._length]
        self._entries.append((msg, marks))
        self._length += 1
        if self._ids is not None:
            self._ids.add(msg.id)

    def keep(self, wanted: Callable[[Entry], bool]) -> int:
        """Leave out the entries that are not wanted; return how many these were."""
        return self._replace([entry for entry in self if wanted(entry)])

    def mark(self, change: Callable[[Entry], Marks]) -> int:
        """Give each entry the marks that ``change`` says; return how many have others now."""
        entries = [(entry[0], change(entry)) for entry in self]
        changed = sum(new[1] != old[1] for new, old in zip(entries, self, strict=True))
        if changed:
            self._replace(entries)
        return changed

    def has(self, msg_id: str) -> bool:
        """Whether a message of that id is there."""
        if self._ids is None:
            self._ids = {msg.id for msg, _ in self}
        return msg_id in self._ids

    def has_same(self, msg: Msg) -> bool:
        """Whether a message is there that has this one's id and says the same."""
        return any(
            (known.id, known.role, known.name, known.content) == (msg.id, msg.role, msg.name, msg.content)
            for known, _ in self
        )

    def _replace(self, entries: list[Entry]) -> int:
        fewer = self._length - len(entries)
        self._entries, self._length, self._ids = entries, len(entries), None
        return fewer

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries if len(self._entries) == self._length else self._entries[: self._length])

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        return self._entries[: self._length][index] if isinstance(index, slice) else self._entries[self._at(index)]

    def _at(self, index: int) -> int:
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(f"there are {self._length} messages, and no number {index}")
        return at
