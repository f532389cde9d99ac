"""The port: who is told what goes on in a runtime. The adapters make traces and metrics of it."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

Operation = Literal["invocation", "model_call", "tool_call", "session_load", "session_save", "lease_wait"]
"""What is told of, and what is known of it; every value may be missing:

``invocation``
    An app's answer to a message; its name is the route, "" when it is not asked over HTTP. Begins with ``headers``:
    those of whoever asks. Ends with ``code``: "ok", or the code of the error in the HTTP API; ``status``, of HTTP;
    ``lines``; ``first_line``, seconds from its begin; ``input_tokens`` and ``output_tokens`` of its model calls;
    ``request_id``, ``session_id``, ``invocation_id``.
``model_call``
    Its name is the slot. Begins with ``provider``, ``model``, ``stream``. Ends with ``input_tokens``,
    ``output_tokens``, ``stop_reason``. Where contents are wanted: ``messages``, and ``answer``, a ``ChatResponse``.
``tool_call``
    Its name is the tool's, "" for one that the toolkit does not have. Begins with ``call_id``, ends with ``failed``,
    True when the tool answered with an error. Where contents are wanted: ``arguments``, and ``answer``, blocks.
``session_load``, ``session_save``
    One call of the session store, with the wait for the session.
``lease_wait``
    The wait for a session that another process uses.
"""


class Observer(Protocol):
    """Is told of what begins."""

    @property
    def wants_contents(self) -> bool:
        """Whether it may be told what messages and tool calls hold."""
        ...

    def begin(self, operation: Operation, name: str = "", **about: object) -> "Observation":
        """An operation begins, inside this one."""
        ...


class Observation(Observer, Protocol):
    """An operation while it goes on: what begins in it is told to it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What a request carries that is made for this operation, so that its receiver goes on with the trace."""
        ...

    def end(self, error: BaseException | None = None, **about: object) -> None:
        """It is over. A ``GeneratorExit`` says that its reader left before the end, which is no failure."""
        ...


@runtime_checkable
class Telemetry(Observer, Protocol):
    """Is told of all that goes on in a runtime, on its event loop. Nothing here may block, or raise."""

    def error_sent(self, code: str) -> None:
        """A client was told of an error, by a status or in a trailer. ``code`` is that of the HTTP API."""
        ...


class Levels(NamedTuple):
    """What there is of something in a runtime now."""

    resident_sessions: int
    running_invocations: int
    waiting_invocations: int


@runtime_checkable
class Exposition(Protocol):
    """Metrics that can be scraped."""

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics in a form that the ``Accept`` header allows, and that form's content type. It may block."""
        ...
