"""``runtime.models``: the configured models by slot, and the handles through which an app calls them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from agentscope.errors import UnknownNameError
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModel, ChatResponse, ToolChoice, ToolSchema
from agentscope.module import OwnedStream
from agentscope.runtime._current import find_invocation
from agentscope.runtime._model_call import ModelCall, begin_model_call
from agentscope.runtime.settings import ModelSettings

if TYPE_CHECKING:
    from agentscope.runtime._invocation import Invocation


class ModelStream(OwnedStream[ChatChunk]):
    """A model's answer while it is made.

    It belongs to the invocation that asked for it, which closes it at the latest when the invocation ends. Close it
    sooner with ``async with`` or ``aclose()``, which closes the connection to the vendor.
    """

    def __init__(self, chunks: AsyncIterator[ChatChunk], begin: Callable[[], ModelCall | None] = lambda: None) -> None:
        super().__init__()
        self._begin(self._read(chunks, begin))

    async def _read(
        self, chunks: AsyncIterator[ChatChunk], begin: Callable[[], ModelCall | None]
    ) -> AsyncGenerator[ChatChunk, None]:
        invocation = cast("Invocation[Any] | None", self._invocation)
        self._note_reader()
        # Only now: the request is sent when the first chunk is asked for.
        call = begin()
        try:
            async for chunk in chunks:
                if call is not None:
                    call.take(chunk)
                if chunk.usage is not None and invocation is not None:
                    invocation.count(chunk.usage)
                yield chunk
                self._note_reader()
        except BaseException as error:
            if call is not None:
                call.end(error)
            if not isinstance(error, asyncio.CancelledError) or not self._is_stopped_by_aclose():
                raise
        finally:
            if call is not None:
                call.end()
            try:
                if hasattr(chunks, "aclose"):
                    await cast("AsyncGenerator[ChatChunk, None]", chunks).aclose()
            finally:
                self._end()


class ModelHandle:
    """A model slot. It asks the container for the model at each call, so that it follows every replacement."""

    __slots__ = ("_about", "_provider", "slot")

    def __init__(self, slot: str, provider: Callable[[], ChatModel], settings: ModelSettings | None = None) -> None:
        self.slot = slot
        self._provider = provider
        self._about: dict[str, object] = {}
        if settings is not None:
            self._about = {"provider": settings.provider, "model": settings.model}

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
        chunks = self._provider().stream(messages, tools=tools, tool_choice=tool_choice, **kwargs)
        return ModelStream(chunks, partial(begin_model_call, self.slot, self._about, messages, kwargs))

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
        call = begin_model_call(self.slot, self._about, messages, kwargs)
        try:
            response = await self._provider()(messages, tools=tools, tool_choice=tool_choice, **kwargs)
        except BaseException as error:
            if call is not None:
                call.end(error)
            raise
        if call is not None:
            call.answered(response)
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

    def __init__(
        self, providers: Mapping[str, Callable[[], ChatModel]], settings: Mapping[str, ModelSettings] | None = None
    ) -> None:
        about = settings or {}
        self._handles = {slot: ModelHandle(slot, provider, about.get(slot)) for slot, provider in providers.items()}
        # As attributes of their own they are found at once; a name that the mapping needs stays the mapping's.
        taken = {*dir(type(self)), *vars(self)}
        vars(self).update({slot: handle for slot, handle in self._handles.items() if slot not in taken})

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
