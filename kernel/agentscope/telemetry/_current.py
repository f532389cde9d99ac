"""What the running code belongs to, for those who tell of it: an operation, and a request."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from agentscope.module import current_invocation
from agentscope.telemetry._off import OFF

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from contextvars import Token

    from agentscope.telemetry._port import Observation, Observer, Operation

current_observer: ContextVar[Observer] = ContextVar("agentscope_observer", default=OFF)
"""Who is told what the running code begins. It is set where code is run from beginning to end, and never across the
``yield`` of a generator, whose reader would inherit it."""

current_request_id: ContextVar[str | None] = ContextVar("agentscope_request_id", default=None)


def begin(operation: Operation, name: str = "", **about: object) -> Observation:
    """Tell of an operation of the running code, whose ``end`` must follow."""
    return current_observer.get().begin(operation, name, **about)


@contextmanager
def observed(operation: Operation, name: str = "", **about: object) -> Generator[Observation]:
    """Tell of the block as an operation: what it begins is told as a part of it."""
    observation = begin(operation, name, **about)
    if observation is OFF:
        yield observation
        return
    token = current_observer.set(observation)
    try:
        yield observation
    except BaseException as error:
        observation.end(error)
        raise
    else:
        observation.end()
    finally:
        current_observer.reset(token)


class Inside:
    """Lets code be a part of an operation for a while: the steps of a generator, but not what its reader does between.

    Enter and leave in one step, before each ``yield``.
    """

    __slots__ = ("_observation", "_token")

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._token: Token[Observer] | None = None

    def enter(self) -> None:
        """What the running code begins from now on is a part of the operation."""
        if self._observation is not OFF:
            self._token = current_observer.set(self._observation)

    def leave(self) -> None:
        """It belongs to what it belonged to before. Leaving twice does nothing."""
        if self._token is not None:
            current_observer.reset(self._token)
            self._token = None


def outgoing_headers() -> Mapping[str, str]:
    """What a request to another service carries, so that the trace goes on there; nothing without traces."""
    headers: Mapping[str, str] = getattr(current_observer.get(), "headers", OFF.headers)
    return headers


def log_context() -> dict[str, str]:
    """What a log record of the running code is told of where it comes from: the ids of its request and its trace."""
    ids: dict[str, str] = {}
    invocation = current_invocation.get()
    request_id = getattr(invocation, "request_id", None) or current_request_id.get()
    if request_id:
        ids["request_id"] = request_id
    for name in ("session_id", "invocation_id"):
        value = getattr(invocation, name, None)
        if value:
            ids[name] = value
    parent = outgoing_headers().get("traceparent")
    if parent:
        _, ids["trace_id"], ids["span_id"], _ = parent.split("-")
    return ids
