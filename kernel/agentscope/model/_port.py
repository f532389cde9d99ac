"""The port: what every chat model can do, whoever makes it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from agentscope.message import Msg
from agentscope.model._chat import ChatChunk, ChatResponse, collect

ToolSchema = Mapping[str, Any]
"""A tool as OpenAI describes one, the form that AgentScope v1's toolkits give:
``{"type": "function", "function": {"name": …, "description": …, "parameters": <JSON schema>}}``."""

ToolChoice = Literal["auto", "none", "required"] | str
"""Whether the model may, may not or must call a tool; any other word is the name of the one tool it must call."""


@runtime_checkable
class ChatModel(Protocol):
    """A chat model.

    Both ways of calling raise ``ModelError``. Keyword arguments beyond those named go to the vendor as they are
    and win over the ``generate_kwargs`` of the configuration.
    """

    def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatChunk]:
        """The answer as it is made. Closing the iterator, or cancelling its reader, closes the vendor's connection."""
        ...

    async def __call__(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> ChatResponse:
        """The answer when it is whole."""
        ...


class ChatModelBase(ABC):
    """What an adapter starts from: it writes ``stream`` as an async generator and has the rest."""

    @abstractmethod
    def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatChunk]:
        """See ``ChatModel.stream``."""

    async def __call__(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> ChatResponse:
        """See ``ChatModel.__call__``."""
        return await collect(self.stream(messages, tools=tools, tool_choice=tool_choice, **kwargs))

    async def aclose(self) -> None:  # noqa: B027 - nothing to close is the common case, not a forgotten method
        """Close the connections that the model holds; called once, when the runtime stops."""
