"""Sending spans to a collector, from a thread: nobody waits for it, and nobody notices when it is gone."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import Final, Generic, TypeVar

from agentscope_adapters.telemetry._collector import Collector, Failure

_log = logging.getLogger("agentscope.telemetry")
_SpanT = TypeVar("_SpanT")

_QUEUE: Final = 4096
"""How many spans may wait. When more come, the oldest are lost."""

_BATCH: Final = 1024
_BATCH_SECONDS: Final = 1.0
"""How long spans wait for others to be sent with, and how long after a failure it is tried again."""

_CLOSE_SECONDS: Final = 2.0
"""How long the last spans may take when the runtime stops."""


class Sender(Generic[_SpanT]):
    """Sends what is added, in batches of which ``encode`` makes the body of a request.

    ``endpoint`` is the collector's URL, ``headers`` go with each request.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str], encode: Callable[[Sequence[_SpanT]], bytes]) -> None:
        self._collector = Collector(endpoint, headers)
        self._encode = encode
        self._queue: deque[_SpanT] = deque(maxlen=_QUEUE)
        self._enough = Event()
        self._stop = Event()
        self._is_failing = False
        self._lost = 0
        self._on_end: Callable[[], object] = lambda: None
        # A daemon: a process that ends does not wait for a collector.
        self._thread = Thread(target=self._run, name="agentscope-spans", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, span: _SpanT) -> None:
        """Send this one as well. It must not change any more."""
        if len(self._queue) == _QUEUE:
            self._lost += 1
        self._queue.append(span)
        if len(self._queue) >= _BATCH and not self._enough.is_set():
            self._enough.set()

    async def aclose(self) -> None:
        """Send what is left, for two seconds at most."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            # The loop may be gone by then.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

        self._on_end = tell
        self._stop.set()
        self._enough.set()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await ended.wait()
        except TimeoutError:
            _log.warning("the last spans are lost: %s did not take them in time", self._collector)
        finally:
            self._queue.clear()
            self._collector.close()

    def _run(self) -> None:
        batch: list[_SpanT] = []
        try:
            while not self._stop.is_set():
                # After a failure not at once, however many wait.
                (self._stop if batch else self._enough).wait(_BATCH_SECONDS)
                self._enough.clear()
                batch = self._send_all(batch)
            if not self._is_failing:
                batch = self._send_all(batch)
            if lost := len(batch) + len(self._queue):
                _log.warning("the last %d spans are lost: %s does not take them", lost, self._collector)
        except Exception:
            # A boundary: nobody looks after the thread.
            _log.exception("no more spans are sent")
        finally:
            self._collector.close()
            self._on_end()

    def _send_all(self, batch: list[_SpanT]) -> list[_SpanT]:
        """Send that batch and all that waits; return what is to be sent again."""
        while batch or self._queue:
            while self._queue and len(batch) < _BATCH:
                batch.append(self._queue.popleft())
            failure = self._collector.post(self._encode(batch))
            if failure is None:
                self._has_sent()
            else:
                self._has_failed(failure)
                if failure.may_pass:
                    return batch
                self._lost += len(batch)
            batch = []
        return batch

    def _has_sent(self) -> None:
        if self._is_failing:
            _log.info("%s takes spans again; %d were lost", self._collector, self._lost)
            self._is_failing, self._lost = False, 0

    def _has_failed(self, failure: Failure) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.warning("%s does not take spans: %s", self._collector, failure.reason)
