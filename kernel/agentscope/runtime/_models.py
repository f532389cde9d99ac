"""``runtime.models``: the configured models by slot, and the handles through which an app calls them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from agentscope.errors import UnknownNameError
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModel, ChatResponse, ToolChoice, ToolSchema
from agentscope.module import OwnedStream
from agentscope.runtime._current import find_invocation

if TYPE_CHECKING:
    from agentscope.runtime._invocation import Invocation


class ModelStream(OwnedStream[ChatChunk]):
    """A model's answer while it is made.

    It belongs to the invocation that asked for it, which closes it at the latest when the invocation ends. Close it
    sooner with ``async with`` or ``aclose()``, which closes the connection to the vendor.
    """

    def __init__(self, chunks: AsyncIterator[ChatChunk]) -> None:
        super().__init__()
        self._begin(self._read(chunks))

    async def _read(self, chunks: AsyncIterator[ChatChunk]) -> AsyncGenerator[ChatChunk, None]:
        invocation = cast("Invocation[Any] | None", self._invocation)
        self._note_reader()
        try:
            async for chunk in chunks:
                if chunk.usage is not None and invocation is not None:
                    invocation.count(chunk.usage)
                yield chunk
                self._note_reader()
        except asyncio.CancelledError:
            if not self._is_stopped_by_aclose():
                raise
        finally:
            try:
                if hasattr(chunks, "aclose"):
                    await cast("AsyncGenerator[ChatChunk, None]", chunks).aclose()
            finally:
                self._end()


class ModelHandle:
    """A model slot. It asks the container for the model at each call, so that it follows every replacement."""

    __slots__ = ("_provider", "slot")

    def __init__(self, slot: str, provider: Callable[[], ChatModel]) -> None:
        self.slot = slot
        self._provider = provider

    def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> ModelStream:
        """See ``ChatModel.stream``."""
        _check_messages(messages)
        return ModelStream(self._provider().stream(messages, tools=tools, tool_choice=tool_choice, **kwargs))

    async def __call__(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> ChatResponse:
        """See ``ChatModel.__call__``."""
        _check_messages(messages)
        invocation = find_invocation()
        if invocation is not None:
            invocation.require_open(f"model {self.slot!r}")
        response = await self._provider()(messages, tools=tools, tool_choice=tool_choice, **kwargs)
        if invocation is not None and response.usage is not None:
            invocation.count(response.usage)
        return response

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<model {self.slot!r}>"


class ModelSlots(Mapping[str, ModelHandle]):
    """The models by slot: ``runtime.models.main`` or ``runtime.models["main"]``."""

    def __init__(self, providers: Mapping[str, Callable[[], ChatModel]]) -> None:
        self._handles = {slot: ModelHandle(slot, provider) for slot, provider in providers.items()}

    def __getitem__(self, slot: str) -> ModelHandle:
        try:
            return self._handles[slot]
        except KeyError:
            raise UnknownNameError("model slot", slot, self._handles) from None

    def __getattr__(self, slot: str) -> ModelHandle:
        if slot.startswith("__"):
            raise AttributeError(slot)
        return self[slot]

    def __contains__(self, slot: object) -> bool:
        return slot in self._handles

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)

    def __repr__(self) -> str:
        return f"<models: {', '.join(self._handles) or 'none'}>"


def _check_messages(messages: object) -> None:
    if isinstance(messages, str | Msg):
        raise TypeError(f"a model takes a list of messages, not a {type(messages).__name__}: write [msg]")
