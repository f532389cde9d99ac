"""``InMemoryMemory``: messages in this process, saved with the session."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentscope.errors import StateMismatchError
from agentscope.memory._base import MemoryBase
from agentscope.memory._history import Entry, History, Marks
from agentscope.message import Msg
from agentscope.module import TrackedList


class InMemoryMemory(MemoryBase):
    """A memory that holds its messages in this process.

    One object serves every session, each with messages of its own. Messages are copied when they are added and stay
    as they are: to edit one, delete it and add another.
    """

    _history: History

    def __init__(self) -> None:
        super().__init__()
        self._history = History()
        self.register_state("_history")

    @property
    def content(self) -> list[tuple[Msg, list[str]]]:
        """The messages in order, each with its marks; a list of its own, so that changing it changes nothing here."""
        return [(msg, list(marks)) for msg, marks in self._history]

    async def add(
        self,
        memories: Msg | Sequence[Msg] | None,
        marks: str | Sequence[str] | None = None,
        allow_duplicates: bool = False,
        **kwargs: Any,
    ) -> None:
        """See ``MemoryBase.add``. A message whose id is there already is left out, unless duplicates are allowed."""
        if memories is None:
            return
        wanted = _marks(marks)
        history = self._to_change()
        for msg in [memories] if isinstance(memories, Msg) else memories:
            if not isinstance(msg, Msg):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
                raise TypeError(f"a memory holds Msg objects, not a {type(msg).__name__}")
            if allow_duplicates or not history.has(msg.id):
                history.add(msg.frozen(), wanted)
            elif not history.has_same(msg):
                # The id of another message, which is no reason to lose this one.
                history.add(Msg(msg.name, msg.content, msg.role, msg.metadata, msg.timestamp).frozen(), wanted)

    async def delete(self, msg_ids: Sequence[str], **kwargs: Any) -> int:
        """See ``MemoryBase.delete``."""
        unwanted = {msg_ids} if isinstance(msg_ids, str) else set(msg_ids)
        return self._to_change().keep(lambda entry: entry[0].id not in unwanted)

    async def delete_by_mark(self, mark: str | Sequence[str], **kwargs: Any) -> int:
        """See ``MemoryBase.delete_by_mark``."""
        unwanted = set(_marks(mark))
        if not any(not unwanted.isdisjoint(marks) for _, marks in self._history):
            return 0
        return self._to_change().keep(lambda entry: unwanted.isdisjoint(entry[1]))

    async def get_memory(
        self, mark: str | None = None, exclude_mark: str | None = None, prepend_summary: bool = True, **kwargs: Any
    ) -> list[Msg]:
        """See ``MemoryBase.get_memory``."""
        for name, value in (("mark", mark), ("exclude_mark", exclude_mark)):
            if not isinstance(value, str | None):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
                raise TypeError(f"{name} must be a string or None, not a {type(value).__name__}")
        messages = [
            msg
            for msg, marks in self._history
            if (mark is None or mark in marks) and (exclude_mark is None or exclude_mark not in marks)
        ]
        if prepend_summary and self._compressed_summary:
            messages.insert(0, Msg("user", self._compressed_summary, "user"))
        return messages

    async def update_messages_mark(
        self, new_mark: str | None, old_mark: str | None = None, msg_ids: Sequence[str] | None = None
    ) -> int:
        """See ``MemoryBase.update_messages_mark``."""
        wanted = None if msg_ids is None else {msg_ids} if isinstance(msg_ids, str) else set(msg_ids)

        def change(entry: Entry) -> Marks:
            msg, marks = entry
            if (wanted is not None and msg.id not in wanted) or (old_mark is not None and old_mark not in marks):
                return marks
            kept = tuple(mark for mark in marks if mark not in (old_mark, new_mark))
            return kept if new_mark is None else (*kept, new_mark)

        return self._to_change().mark(change)

    async def size(self) -> int:
        """See ``MemoryBase.size``."""
        return len(self._history)

    async def clear(self) -> None:
        """See ``MemoryBase.clear``."""
        self._history = History()

    def state_dict(self) -> dict[str, Any]:
        """The summary and the messages, in AgentScope v1's form: each as a pair of the message and its marks."""
        return {**self._without_history(super().state_dict()), "content": list(self._history.states())}

    def tracked_state(self) -> dict[str, Any]:
        """See ``Tracked``: the messages are a tracked list."""
        return {**self._without_history(super().tracked_state()), "content": self._history.fork()}

    def tracked_lists(self) -> dict[str, TrackedList]:
        """See ``Tracked``."""
        return {**super().tracked_lists(), "/content": self._history.fork()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Take over a state of this form, or of v1's older one, where ``content`` holds the messages alone.

        Raises ``StateMismatchError`` for anything else; without ``content``, only when ``strict`` is true.
        """
        if not isinstance(state_dict, Mapping) or (strict and "content" not in state_dict):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from a store
            raise StateMismatchError(type(self).__name__, "it has no 'content'")
        state = {"_compressed_summary": "", **state_dict}
        if state["_compressed_summary"] is None:
            state["_compressed_summary"] = ""
        if "content" in state:
            content: object = state.pop("content")
            if not isinstance(content, History | list):
                raise StateMismatchError(type(self).__name__, "its 'content' is no list")
            states = cast("list[object]", content)
            state["_history"] = content if isinstance(content, History) else History().spliced(0, states)
        elif "_compressed_summary" not in state_dict:
            del state["_compressed_summary"]
        if not isinstance(state.get("_compressed_summary", ""), str):
            raise StateMismatchError(type(self).__name__, "its summary is no text")
        super().load_state_dict(state, strict)

    def _without_history(self, state: dict[str, Any]) -> dict[str, Any]:
        del state["_history"]
        return state

    def _to_change(self) -> History:
        # Outside any session, while a runtime serves, this is where a change is refused.
        self._history = history = self._history
        return history


def _marks(marks: object) -> Marks:
    if marks is None:
        return ()
    if isinstance(marks, str):
        return (marks,)
    if isinstance(marks, Sequence) and all(isinstance(mark, str) for mark in cast("Sequence[object]", marks)):
        return tuple(cast("Sequence[str]", marks))
    raise TypeError(f"marks must be a string, a list of strings or None, not {marks!r}")
