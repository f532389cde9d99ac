"""One answer of a vendor's, event by event, as the port's chunks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Final, cast

import orjson

from agentscope.message import ToolUseBlock
from agentscope.model import ChatChunk
from agentscope_adapters.models._sse import DamagedStreamError, json_object

_DONE: Final = b"[DONE]"

# No vendor's field is looked at before it is used, for there are some in each of hundreds of events.
_WRONG_FORM: Final = (AttributeError, LookupError, TypeError, ValueError)


class ErrorEvent(Exception):
    """What a vendor says when it gives up in mid-stream. ``words`` are those that may say what kind of error it is."""

    def __init__(self, detail: str, words: Iterable[object]) -> None:
        super().__init__(detail)
        self.detail = detail
        self.words = words


class Answer(ABC):
    """One answer, from a stream's events or from the vendor's whole message. An adapter adds what they mean.

    ``over`` turns true with the event after which nothing more belongs to the answer. All that is not the vendor's
    protocol raises ``DamagedStreamError``.
    """

    ignored: ClassVar[frozenset[bytes]] = frozenset()
    """The types of events that are passed over, whatever their data."""

    def __init__(self) -> None:
        self.over = False

    def take(self, name: bytes, data: bytes) -> ChatChunk | None:
        """What an event adds; None when it adds nothing yet. Raises ``ErrorEvent`` when the vendor gave up."""
        if name == b"error":
            raise error_event(data)
        if not data or name in self.ignored:
            return None
        if data.startswith(_DONE):
            self.over = True
            return None
        try:
            return self._add(json_object(data))
        except _WRONG_FORM as error:
            raise _wrong_form() from error

    def finish(self) -> ChatChunk:
        """What is left when the events are over. Raises ``ModelConnectionError`` when the closing one is missing."""
        try:
            return self._last()
        except _WRONG_FORM as error:
            raise _wrong_form() from error

    def take_whole(self, body: bytes) -> ChatChunk:
        """The one chunk of an answer that wasn't streamed."""
        try:
            return self._whole(json_object(body))
        except _WRONG_FORM as error:
            raise _wrong_form() from error

    @abstractmethod
    def _add(self, event: dict[str, Any]) -> ChatChunk | None:
        """What an event adds."""

    @abstractmethod
    def _last(self) -> ChatChunk:
        """What is left."""

    @abstractmethod
    def _whole(self, answer: dict[str, Any]) -> ChatChunk:
        """The one chunk of a whole answer."""


def _wrong_form() -> DamagedStreamError:
    return DamagedStreamError("the answer has a form that the vendor's protocol does not know")


def text_of(value: object) -> str:
    """A text as it is. Raises ``TypeError`` for anything else: an app would fail on it."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def error_event(data: bytes) -> ErrorEvent:
    """The error in the data of an event."""
    try:
        event = json_object(data)
    except DamagedStreamError:
        return ErrorEvent(data.decode(errors="replace") or "the vendor gave no reason", ())
    return error_in(event.get("error") or event)


def error_in(error: object) -> ErrorEvent:
    """The error that an event holds, in the form that the vendors share."""
    if not isinstance(error, dict):
        return ErrorEvent(str(error), ())
    fields = cast("dict[str, object]", error)
    return ErrorEvent(str(fields.get("message") or fields), (fields.get("code"), fields.get("type")))


def tool_use(id: str, name: str, arguments: str) -> ToolUseBlock:
    """The block of a complete tool call. No text at all means no arguments."""
    block: ToolUseBlock = {"type": "tool_use", "id": id, "name": name, "input": {}}
    try:
        value: object = orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        block["input"] = cast("dict[str, Any]", value)
    else:
        block["raw_input"] = arguments
    return block
