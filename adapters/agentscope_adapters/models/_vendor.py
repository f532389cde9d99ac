"""What the vendors' adapters are made from: a call's way through an SDK and back, whoever the vendor is."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, signature
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModelBase, ModelConnectionError, ModelError, ToolChoice, ToolSchema
from agentscope.runtime.settings import ModelSettings
from agentscope.telemetry import outgoing_headers
from agentscope_adapters.models._answer import Answer, ErrorEvent
from agentscope_adapters.models._failures import error_for_event, error_for_transport
from agentscope_adapters.models._sse import DamagedStreamError, EventDecoder
from agentscope_adapters.models._transport import TIMEOUTS, TRANSPORT_ERRORS, Response, reading
from agentscope_adapters.secrets import Secrets

_DRAIN: Final = 0.1  # seconds


class Client(Protocol):
    """A vendor's client."""

    async def close(self) -> None:
        """Close its connections."""


ClientT = TypeVar("ClientT", bound=Client)


class VendorChatModel(ChatModelBase, Generic[ClientT]):
    """A model behind a vendor's SDK. An adapter adds how the SDK is called and what its words mean.

    The SDK makes the connections, says who calls, repeats what failed and names the errors, up to the beginning of an
    answer; a stream's bytes are then read here, for the SDK's own objects cost many times as much as all the rest.
    ``create`` is the SDK's method behind a call; ``defaults`` are arguments for it that ``generate_kwargs`` replace.
    """

    _sdk_errors: ClassVar[tuple[type[Exception], ...]]
    """All that the SDK raises by design."""
    _connection_errors: ClassVar[tuple[type[Exception], ...]]
    """Those of a connection that could not be made, was cut or fell silent."""
    _timeouts: ClassVar[tuple[type[Exception], ...]]
    """Those of a silence."""

    def __init__(
        self,
        slot: str,
        settings: ModelSettings,
        client: ClientT,
        secrets: Secrets,
        *,
        create: Callable[..., object],
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self._slot = slot
        self._client = client
        self._secrets = secrets
        self._defaults = {
            "model": settings.model,
            "stream": settings.stream,
            **(defaults or {}),
            **settings.generate_kwargs,
        }
        self._parameters = parameters_of(create)
        self._expected: tuple[type[Exception], ...] = (
            *self._sdk_errors,
            *TRANSPORT_ERRORS,
            DamagedStreamError,
            ErrorEvent,
        )

    async def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatChunk, None]:
        """See ``ChatModel.stream``."""
        request = self._request(messages, tools, tool_choice, kwargs)
        if headers := outgoing_headers():
            request["extra_headers"] = {**headers, **(request.get("extra_headers") or {})}
        answer = self._answer()
        try:
            if request.pop("stream"):
                decoder = EventDecoder()
                async with reading(await self._open(request)) as pieces:
                    async for piece in pieces:
                        for name, data in decoder.feed(piece):
                            chunk = answer.take(name, data)
                            if chunk is not None:
                                yield chunk
                            elif answer.over:
                                break
                        if answer.over:
                            await _drain(pieces)
                            break
                last = answer.finish()
            else:
                last = answer.take_whole(await self._fetch(request))
        except self._expected as error:
            raise self._failure(error) from error
        yield last

    async def aclose(self) -> None:
        """See ``ChatModelBase.aclose``."""
        await self._client.close()

    @abstractmethod
    def _messages(self, messages: Sequence[Msg]) -> dict[str, Any]:
        """The arguments of a request that carry the messages."""

    @abstractmethod
    def _tool(self, tool: ToolSchema) -> dict[str, Any]:
        """A tool in the vendor's form."""

    @abstractmethod
    def _choice(self, tool_choice: ToolChoice) -> object:
        """A choice among the tools in the vendor's form."""

    @abstractmethod
    async def _open(self, request: Mapping[str, Any]) -> Response:
        """Send a request whose answer is streamed."""

    @abstractmethod
    async def _fetch(self, request: Mapping[str, Any]) -> bytes:
        """Send a request whose answer comes whole."""

    @abstractmethod
    def _answer(self) -> Answer:
        """An answer of which nothing has come yet."""

    @abstractmethod
    def _vendor_error(self, error: Exception) -> ModelError | None:
        """The error for what the vendor itself said; None when the SDK's text is all there is."""

    def _request(
        self,
        messages: Sequence[Msg],
        tools: Sequence[ToolSchema] | None,
        tool_choice: ToolChoice | None,
        kwargs: Mapping[str, Any],
    ) -> dict[str, Any]:
        request = merge_arguments(self._parameters, self._defaults, kwargs)
        request.update(self._messages(messages))
        if tools:
            request["tools"] = [self._tool(tool) for tool in tools]
        # Without tools a vendor refuses even a choice that asks for nothing.
        if tool_choice is not None and ("tools" in request or tool_choice not in ("auto", "none")):
            request["tool_choice"] = self._choice(tool_choice)
        return request

    def _failure(self, error: Exception) -> ModelError:
        self._secrets.scrub_error(error)
        if isinstance(error, ErrorEvent):
            return error_for_event(self._slot, self._secrets.scrub(error.detail), error.words)
        if isinstance(error, (*self._connection_errors, *TRANSPORT_ERRORS)):
            timed_out = isinstance(error, (*self._timeouts, *TIMEOUTS))
            return error_for_transport(self._slot, error, timed_out=timed_out, secrets=self._secrets)
        said = self._vendor_error(error)
        if said is not None:
            return said
        failure = ModelError if isinstance(error, self._sdk_errors) else ModelConnectionError
        return failure(self._slot, self._secrets.scrub(str(error)))


def build_client(
    slot: str, client_class: Callable[..., ClientT], arguments: Mapping[str, Any], secrets: Secrets
) -> ClientT:
    """The vendor's client. Raises ``UserError`` when it doesn't take the arguments."""
    try:
        return client_class(**arguments)
    except Exception as error:  # an SDK raises TypeError, ValueError or its own root for arguments that it can't use
        secrets.scrub_error(error)
        raise UserError(f"models.{slot}.client_kwargs: {error}") from error


def parameters_of(method: Callable[..., object]) -> frozenset[str]:
    """The names of a method's keyword parameters."""
    parameters = signature(method).parameters.values()
    return frozenset(parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY)


def merge_arguments(known: frozenset[str], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one request; a later layer wins over an earlier one.

    An SDK has no parameter for what only a compatible vendor knows, or for what its own vendor has retired; both go
    into the body as they are.
    """
    merged = {name: value for layer in layers for name, value in layer.items()}
    unknown = {name: merged.pop(name) for name in sorted(merged.keys() - known)}
    if unknown:
        merged["extra_body"] = {**unknown, **(merged.get("extra_body") or {})}
    return merged


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    # What follows the last event is the end of the body; only past it can the connection be used again.
    with suppress(TimeoutError, *TRANSPORT_ERRORS):
        async with asyncio.timeout(_DRAIN):
            async for _ in pieces:
                pass
