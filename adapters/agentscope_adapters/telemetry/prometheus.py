"""Metrics for Prometheus: counted where they happen, and written out when they are scraped.

Each runtime has a registry of its own. Only where several processes serve one port, and ``PROMETHEUS_MULTIPROC_DIR``
names a folder that they share, are the numbers kept there, and a scrape of any of them shows them all.
"""

import asyncio
import platform
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from agentscope import __version__
from agentscope.runtime.settings import Settings
from agentscope.telemetry import OFF, Levels, Operation, Telemetry
from agentscope_adapters.telemetry._outcomes import model_outcome, outcome

_MetricT = TypeVar("_MetricT")

_LOOK_SECONDS: Final = 0.5
"""How often the event loop is looked at."""

_MOST_TOOLS: Final = 100
"""How many tools have a label of their own; further ones are counted as ``other``."""

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_SHORT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@asynccontextmanager
async def open_metrics(settings: Settings, project: Path, levels: Callable[[], Levels]) -> AsyncGenerator[Telemetry]:
    """Metrics of a runtime until the block ends. ``levels`` is asked for what there is at a moment."""
    metrics = _Metrics(levels)
    # In the context of nobody: it would keep that one's state.
    looking = asyncio.get_running_loop().create_task(metrics.look_at_loop(), context=Context())
    try:
        yield metrics
    finally:
        looking.cancel()
        await asyncio.wait([looking])


class _Children(dict[tuple[str, ...], _MetricT], Generic[_MetricT]):
    """A metric's children by their labels, kept: the library takes longer to find one than to count."""

    def __init__(self, find: Callable[..., _MetricT]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, labels: tuple[str, ...]) -> _MetricT:
        child = self[labels] = self._find(*labels)
        return child


class _Metrics:
    """See ``Telemetry`` and ``Exposition``."""

    def __init__(self, levels: Callable[[], Levels]) -> None:
        registry = CollectorRegistry()
        self._registry = _scraped(registry)

        def counter(name: str, meaning: str, *labels: str) -> _Children[Counter]:
            return _Children(Counter(f"agentscope_{name}", meaning, labels, registry=registry).labels)

        def seconds(name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"agentscope_{name}_seconds", meaning, labels, registry=registry, buckets=buckets)

        def level(name: str, meaning: str) -> Gauge:
            return Gauge(f"agentscope_{name}", meaning, registry=registry, multiprocess_mode="livesum")

        self._invocations = counter("invocations", "Invocations that ended, by code, or ok", "outcome")
        self._invocation_seconds = seconds("invocation", "From the head of a request to the end of its invocation")
        self._first_line_seconds = seconds("first_line", "From the head of a request to the first line of its answer")
        self._lines = Counter("agentscope_lines", "Messages that apps gave", registry=registry)
        self._model_calls = counter("model_calls", "Calls of models that ended", "slot", "outcome")
        self._model_seconds = _Children(
            seconds("model_call", "From a model's request to the end of its answer", "slot").labels
        )
        self._tokens = counter("tokens", "Tokens that models read (input) and wrote (output)", "slot", "direction")
        self._tool_calls = counter("tool_calls", "Calls of tools that ended", "tool", "outcome")
        self._errors = counter("errors", "Errors that clients were told, by status or in a trailer", "code")
        self._session_seconds = _Children(
            seconds(
                "session_store", "A load or a save, with the wait for the session", "operation", buckets=_SHORT_SECONDS
            ).labels
        )
        self._lease_seconds = seconds(
            "lease_wait", "Waits for a session that another process used", buckets=_SHORT_SECONDS
        )
        self._lag_seconds = seconds("event_loop_lag", "How late the event loop is", buckets=_SHORT_SECONDS)
        self._levels = levels
        self._gauges = {
            "resident_sessions": level("resident_sessions", "Sessions whose state is in memory"),
            "running_invocations": level("running_invocations", "Invocations that run"),
            "waiting_invocations": level(
                "waiting_invocations", "Invocations that wait for their session or for a slot"
            ),
        }
        Gauge("agentscope_build_info", "1", ("version", "python"), registry=registry, multiprocess_mode="max").labels(
            __version__, platform.python_version()
        ).set(1)
        self._tools: set[str] = set()
        self._ended: dict[Operation, Callable[[_Timed, BaseException | None, Mapping[str, Any]], None]] = {
            "invocation": self._invocation_ended,
            "model_call": self._model_call_ended,
            "tool_call": self._tool_call_ended,
            "session_load": self._session_store_ended,
            "session_save": self._session_store_ended,
            "lease_wait": self._lease_wait_ended,
        }

    @property
    def wants_contents(self) -> bool:
        return False

    def begin(self, operation: Operation, name: str = "", **about: object) -> "_Timed":
        return _Timed(self, operation, name)

    def error_sent(self, code: str) -> None:
        self._errors[code,].inc()

    def expose(self, accept: str) -> tuple[bytes, str]:
        self._look_at_levels()
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # It compares what a client calls a version with numbers.
            encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        return encode(self._registry), content_type

    async def look_at_loop(self) -> None:
        """Measure how late the event loop is, again and again."""
        now = asyncio.get_running_loop().time
        while True:
            due = now() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            self._lag_seconds.observe(max(0.0, now() - due))
            # Other processes are scraped in this one's place.
            self._look_at_levels()

    def end(self, timed: "_Timed", error: BaseException | None, about: Mapping[str, Any]) -> None:
        """An operation is over."""
        self._ended[timed.operation](timed, error, about)

    def _look_at_levels(self) -> None:
        for name, value in self._levels()._asdict().items():
            self._gauges[name].set(value)

    def _invocation_ended(self, timed: "_Timed", error: BaseException | None, about: Mapping[str, Any]) -> None:
        self._invocations[about.get("code") or outcome(error, about),].inc()
        if "lines" not in about:
            # It was refused, in no time: that would make the others look fast.
            return
        self._invocation_seconds.observe(timed.seconds())
        if (first_line := about.get("first_line")) is not None:
            self._first_line_seconds.observe(first_line)
            self._lines.inc(about.get("lines", 0))

    def _model_call_ended(self, timed: "_Timed", error: BaseException | None, about: Mapping[str, Any]) -> None:
        slot = timed.name
        self._model_calls[slot, model_outcome(error, about)].inc()
        self._model_seconds[slot,].observe(timed.seconds())
        if tokens := about.get("input_tokens"):
            self._tokens[slot, "input"].inc(tokens)
        if tokens := about.get("output_tokens"):
            self._tokens[slot, "output"].inc(tokens)

    def _tool_call_ended(self, timed: "_Timed", error: BaseException | None, about: Mapping[str, Any]) -> None:
        self._tool_calls[self._tool_label(timed.name), outcome(error, about)].inc()

    def _session_store_ended(self, timed: "_Timed", error: BaseException | None, about: Mapping[str, Any]) -> None:
        self._session_seconds[timed.operation.removeprefix("session_"),].observe(timed.seconds())

    def _lease_wait_ended(self, timed: "_Timed", error: BaseException | None, about: Mapping[str, Any]) -> None:
        self._lease_seconds.observe(timed.seconds())

    def _tool_label(self, name: str) -> str:
        if not name:
            return "unknown"
        if name not in self._tools:
            if len(self._tools) >= _MOST_TOOLS:
                return "other"
            self._tools.add(name)
        return name


class _Timed:
    """See ``Observation``."""

    __slots__ = ("_began", "_metrics", "name", "operation")

    def __init__(self, metrics: _Metrics, operation: Operation, name: str) -> None:
        self.operation: Operation = operation
        self.name = name
        self._metrics = metrics
        self._began = perf_counter()

    @property
    def wants_contents(self) -> bool:
        return False

    @property
    def headers(self) -> Mapping[str, str]:
        return OFF.headers

    def begin(self, operation: Operation, name: str = "", **about: object) -> "_Timed":
        return _Timed(self._metrics, operation, name)

    def end(self, error: BaseException | None = None, **about: object) -> None:
        self._metrics.end(self, error, about)

    def seconds(self) -> float:
        """How long it has taken."""
        return perf_counter() - self._began


def _scraped(registry: CollectorRegistry) -> CollectorRegistry:
    """What a scrape shows: the registry, or what all processes have written into the folder that they share."""
    shared = CollectorRegistry()
    try:
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call] # the library's own lack of types
    except ValueError:
        # No folder is named: this process is the only one.
        return registry
    return shared
