"""``MemoryBase``: what a memory can do, wherever it keeps its messages."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from agentscope.message import Msg
from agentscope.module import StateModule


class MemoryBase(StateModule):
    """The base of a memory: what an agent remembers of a conversation, as in AgentScope v1.

    A message may carry marks: words of the app's own by which it is found again. The compressed summary stands for
    messages that were taken out, "" when there is none.
    """

    _compressed_summary: str

    def __init__(self) -> None:
        super().__init__()
        self._compressed_summary = ""
        self.register_state("_compressed_summary")

    @property
    def compressed_summary(self) -> str:
        """What stands for the messages that were taken out; "" when none were."""
        return self._compressed_summary

    async def update_compressed_summary(self, summary: str) -> None:
        """Put another summary in the place of the one that is there."""
        self._compressed_summary = summary

    @abstractmethod
    async def add(
        self, memories: Msg | Sequence[Msg] | None, marks: str | Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        """Add one message or several, each with these marks; None adds nothing."""
        raise _missing(self, "add")

    @abstractmethod
    async def delete(self, msg_ids: Sequence[str], **kwargs: Any) -> int:
        """Delete the messages of these ids; return how many there were."""
        raise _missing(self, "delete")

    @abstractmethod
    async def delete_by_mark(self, mark: str | Sequence[str], **kwargs: Any) -> int:
        """Delete the messages that have this mark, or one of these; return how many there were."""
        raise _missing(self, "delete_by_mark")

    @abstractmethod
    async def get_memory(
        self, mark: str | None = None, exclude_mark: str | None = None, prepend_summary: bool = True, **kwargs: Any
    ) -> list[Msg]:
        """The messages in order, those with ``mark`` and without ``exclude_mark``; None leaves out the condition.

        With ``prepend_summary`` a summary, when there is one, comes first, as a message of the user.
        """
        raise _missing(self, "get_memory")

    @abstractmethod
    async def update_messages_mark(
        self, new_mark: str | None, old_mark: str | None = None, msg_ids: Sequence[str] | None = None
    ) -> int:
        """Change the marks of the messages that have ``old_mark`` and one of ``msg_ids``; return how many changed.

        ``old_mark`` is taken away and ``new_mark`` is added; None adds or takes away nothing, and as ``msg_ids`` means
        every message.
        """
        raise _missing(self, "update_messages_mark")

    @abstractmethod
    async def size(self) -> int:
        """How many messages there are, the summary not among them."""
        raise _missing(self, "size")

    @abstractmethod
    async def clear(self) -> None:
        """Forget all messages; the summary stays."""
        raise _missing(self, "clear")


def _missing(memory: MemoryBase, name: str) -> NotImplementedError:
    return NotImplementedError(f"{type(memory).__name__} has no `async def {name}(…)`")
