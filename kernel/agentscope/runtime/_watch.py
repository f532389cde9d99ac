"""What is told of an invocation: from the head of its request until it has ended and its answer is out."""

import logging
from collections.abc import Callable, Mapping
from contextvars import Token
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from agentscope.message import Msg
from agentscope.runtime._outcomes import outcome_of
from agentscope.telemetry import OFF, Observation, Observer, Telemetry, current_observer

if TYPE_CHECKING:
    from agentscope.runtime._invocation import Invocation

_log = logging.getLogger("agentscope.invocation")
_T = TypeVar("_T")


class Watch:
    """An invocation as telemetry sees it. It is over when everyone has left who holds it: whoever asks, in its block,
    and the invocation, which may outlast a client that is gone."""

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        self._asked: Token[Observer] | None = None
        self._began = perf_counter()
        self._holders = 1
        self._lines = 0
        self._first_line: float | None = None
        self._about: dict[str, object] = {}

    def __enter__(self) -> "Watch":
        """Whoever asks does so in the block: what is begun there is told as a part of the invocation."""
        self._asked = current_observer.set(self.observation)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._asked is not None:
            current_observer.reset(self._asked)
        # Whoever asked has the answer, or has left without. This code counts when nobody said how it ended.
        self._about.setdefault("code", outcome_of(error))
        self._leave()

    def counting(self, encode: Callable[[Msg], tuple[_T, int]]) -> Callable[[Msg], tuple[_T, int]]:
        """``encode``, which is called for each line."""

        def counted(msg: Msg) -> tuple[_T, int]:
            if not self._lines:
                self._first_line = perf_counter() - self._began
            self._lines += 1
            return encode(msg)

        return counted

    def hold(self) -> None:
        """An invocation has begun, whose ``ended`` follows."""
        self._holders += 1

    def ended(self, invocation: "Invocation[Any]") -> None:
        """The invocation is over."""
        self._about |= {
            "code": outcome_of(invocation.error),
            "lines": self._lines,
            "first_line": self._first_line,
            "input_tokens": invocation.usage.input_tokens,
            "output_tokens": invocation.usage.output_tokens,
            "request_id": invocation.request_id,
            "session_id": invocation.session_id,
            "invocation_id": invocation.invocation_id,
        }
        self._leave()

    def answer(self, status: int, code: str = "ok") -> None:
        """Its HTTP answer has that status. ``code`` counts when there was no invocation to say how it ended."""
        self._about = {"code": code, "status": status, **self._about}

    def _leave(self) -> None:
        self._holders -= 1
        if self._holders:
            return
        self.observation.end(None, **self._about)
        if _log.isEnabledFor(logging.DEBUG):
            seconds = perf_counter() - self._began
            extra = {**self._about, "seconds": round(seconds, 6)}
            _log.debug("invocation ended: %s, %d lines, %.3f s", extra["code"], self._lines, seconds, extra=extra)


def watch(telemetry: Telemetry, name: str, headers: Mapping[str, str]) -> Watch | None:
    """See ``Runtime.watch``."""
    if telemetry is OFF and not _log.isEnabledFor(logging.DEBUG):
        return None
    return Watch(telemetry.begin("invocation", name, headers=headers))
