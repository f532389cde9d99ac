"""What is told of a call of a model, from its request to the end of its answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatResponse, ChatUsage, ResponseBuilder
from agentscope.telemetry import OFF, Inside, Observation, current_observer


class ModelCall:
    """A call that somebody wants to know of.

    While its request is sent, what is sent is a part of it; no longer, for the reader of a stream would inherit that.
    """

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._inside = Inside(observation)
        self._inside.enter()
        self._builder = ResponseBuilder() if observation.wants_contents else None
        self._usage: ChatUsage | None = None
        self._stop_reason: str | None = None
        self._ended = False

    def take(self, chunk: ChatChunk) -> None:
        """The next chunk has come."""
        self._inside.leave()
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.stop_reason is not None:
            self._stop_reason = chunk.stop_reason
        if self._builder is not None:
            self._builder.add(chunk)

    def end(self, error: BaseException | None = None) -> None:
        """No more will come. The first time counts."""
        answer = None if self._builder is None else self._builder.response
        self._end(error, self._usage, self._stop_reason, answer)

    def answered(self, response: ChatResponse) -> None:
        """The answer has come whole."""
        answer = response if self._observation.wants_contents else None
        self._end(None, response.usage, response.stop_reason, answer)

    def _end(
        self,
        error: BaseException | None,
        usage: ChatUsage | None,
        stop_reason: str | None,
        answer: ChatResponse | None,
    ) -> None:
        self._inside.leave()
        if self._ended:
            return
        self._ended = True
        self._observation.end(
            error,
            input_tokens=None if usage is None else usage.input_tokens,
            output_tokens=None if usage is None else usage.output_tokens,
            stop_reason=stop_reason,
            answer=answer,
        )


def begin_model_call(
    slot: str, about: Mapping[str, object], messages: Sequence[Msg], asked: Mapping[str, Any]
) -> ModelCall | None:
    """Tell of a call that begins; None when nobody wants to know.

    ``about`` is what the settings say of the slot, ``asked`` what the caller adds to them.
    """
    observer = current_observer.get()
    if observer is OFF:
        return None
    told = {**about, "model": asked.get("model", about.get("model"))}
    if observer.wants_contents:
        told["messages"] = messages
    return ModelCall(observer.begin("model_call", slot, **told))
