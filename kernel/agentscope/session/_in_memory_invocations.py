"""Invocations in this process's memory."""

import asyncio
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from agentscope.session._invocations import InvocationRecord, LineBatch, LinePage, StopRequest
from agentscope.session._port import Pause

_PAGE_BYTES: Final = 1024 * 1024
_PRUNED_BYTES: Final = 4 * 1024 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


@dataclass
class _Kept:
    """``gone_at`` is when the record and the lines go, None while the invocation has not ended."""

    record: InvocationRecord
    kept: float
    alive_until: float
    gone_at: float | None = None
    lines: list[str] = field(default_factory=list[str])
    is_whole: bool = True

    @property
    def goes_at(self) -> float:
        return self.alive_until + self.kept if self.gone_at is None else self.gone_at


@dataclass
class _Asked:
    request: StopRequest
    expires_at: float
    answered: bool = False


class InMemoryInvocationStore:
    """Keeps invocations for as long as it lives: for ``session.backend: memory`` and for tests.

    Each change runs without a break in between. ``clock`` gives the seconds that invocations are timed by.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._asked: dict[str, _Asked] = {}
        self._watching: dict[str, set[asyncio.Event]] = {}

    async def open_invocation(self, record: InvocationRecord, alive: float, kept: float) -> InvocationRecord | None:
        """See ``InvocationStore.open_invocation``."""
        if record.idempotency_key is not None:
            key = (record.session_id, record.idempotency_key)
            known = self._find(self._by_key.get(key, ""))
            if known is not None and known.record.invocation_id != record.invocation_id:
                return known.record
            self._by_key[key] = record.invocation_id
        if self._find(record.invocation_id) is None:
            self._kept[record.invocation_id] = _Kept(record, kept, self._clock() + alive)
        return None

    async def append_lines(self, batches: Collection[LineBatch], alive: float) -> None:
        """See ``InvocationStore.append_lines``."""
        now = self._clock()
        for batch in batches:
            kept = self._find(batch.invocation_id)
            if kept is None or kept.gone_at is not None:
                continue
            missing = len(kept.lines) + 1 - batch.start
            if missing < 0:
                # What comes after a gap can't be read.
                kept.is_whole = False
            elif kept.is_whole:
                kept.lines += batch.lines[missing:]
            kept.alive_until = now if batch.ends else now + alive
            kept.gone_at = now + kept.kept if batch.ends else None
            self._wake(f"invocation {batch.invocation_id}")

    async def renew_invocations(self, invocation_ids: Collection[str], alive: float) -> None:
        """See ``InvocationStore.renew_invocations``."""
        for invocation_id in invocation_ids:
            kept = self._find(invocation_id)
            if kept is not None and kept.gone_at is None:
                kept.alive_until = self._clock() + alive

    async def find_invocation(self, invocation_id: str) -> InvocationRecord | None:
        """See ``InvocationStore.find_invocation``."""
        kept = self._find(invocation_id)
        return None if kept is None else kept.record

    async def read_lines(self, invocation_id: str, after: int) -> LinePage | None:
        """See ``InvocationStore.read_lines``."""
        kept = self._find(invocation_id)
        if kept is None:
            return None
        lines, size = list[str](), 0
        for line in kept.lines[after:]:
            size += len(line)
            if lines and size > _PAGE_BYTES:
                return LinePage(lines, "running")
            lines.append(line)
        if not kept.is_whole:
            return LinePage(lines, "abandoned")
        if kept.gone_at is not None:
            return LinePage(lines, "ended")
        return LinePage(lines, "running" if kept.alive_until > self._clock() else "abandoned")

    async def forget_invocations(self, invocation_ids: Collection[str]) -> None:
        """See ``InvocationStore.forget_invocations``."""
        for invocation_id in invocation_ids:
            self._remove(invocation_id)

    async def prune_invocations(self, limit: int = 100) -> int:
        """See ``InvocationStore.prune_invocations``."""
        now, size = self._clock(), 0
        over = [invocation_id for invocation_id, kept in self._kept.items() if kept.goes_at <= now][:limit]
        for number, invocation_id in enumerate(over):
            size += sum(map(len, self._kept[invocation_id].lines))
            if number and size > _PRUNED_BYTES:
                return number
            self._remove(invocation_id)
        return len(over)

    def forget_session(self, session_id: str) -> None:
        """Delete all that is kept of a session's invocations."""
        for kept in [kept for kept in self._kept.values() if kept.record.session_id == session_id]:
            self._remove(kept.record.invocation_id)

    @contextmanager
    def watch_invocation(self, invocation_id: str) -> Generator[Pause]:
        """See ``InvocationStore.watch_invocation``."""
        with self._watch(f"invocation {invocation_id}") as pause:
            yield pause

    async def request_stop(self, request: StopRequest, ttl: float) -> None:
        """See ``InvocationStore.request_stop``."""
        self._asked.setdefault(request.request_id, _Asked(request, self._clock() + ttl))
        self._wake("requests")

    async def stop_requests(self) -> Sequence[StopRequest]:
        """See ``InvocationStore.stop_requests``."""
        now = self._clock()
        return [asked.request for asked in self._asked.values() if not asked.answered and asked.expires_at > now]

    async def answer_stop(self, request_id: str) -> None:
        """See ``InvocationStore.answer_stop``."""
        asked = self._asked.get(request_id)
        if asked is not None:
            asked.answered = True
            self._wake(f"request {request_id}")

    async def withdraw_stop(self, request_id: str) -> bool:
        """See ``InvocationStore.withdraw_stop``."""
        asked, now = self._asked.pop(request_id, None), self._clock()
        for over in [other for other, left in self._asked.items() if left.expires_at <= now]:
            del self._asked[over]
        return asked is not None and asked.answered

    async def is_stop_answered(self, request_id: str) -> bool:
        """See ``InvocationStore.is_stop_answered``."""
        asked = self._asked.get(request_id)
        return asked is not None and asked.answered

    @contextmanager
    def watch_stops(self, request_id: str | None = None) -> Generator[Pause]:
        """See ``InvocationStore.watch_stops``."""
        with self._watch("requests" if request_id is None else f"request {request_id}") as pause:
            yield pause

    def _find(self, invocation_id: str) -> _Kept | None:
        kept = self._kept.get(invocation_id)
        return kept if kept is not None and kept.goes_at > self._clock() else None

    def _remove(self, invocation_id: str) -> None:
        kept = self._kept.pop(invocation_id, None)
        if kept is not None and kept.record.idempotency_key is not None:
            key = (kept.record.session_id, kept.record.idempotency_key)
            # It may be another's by now.
            if self._by_key.get(key) == invocation_id:
                del self._by_key[key]

    @contextmanager
    def _watch(self, topic: str) -> Generator[Pause]:
        woken = asyncio.Event()
        watching = self._watching.setdefault(topic, set())
        watching.add(woken)
        try:
            yield lambda attempt: _pause(woken, attempt)
        finally:
            watching.discard(woken)
            if not watching:
                self._watching.pop(topic, None)

    def _wake(self, topic: str) -> None:
        for woken in self._watching.get(topic, ()):
            woken.set()


async def _pause(woken: asyncio.Event, attempt: int) -> None:
    # That time has passed is announced by nobody.
    with suppress(TimeoutError):
        async with asyncio.timeout(min(_FIRST_PAUSE * 2 ** min(attempt, 10), _LONGEST_PAUSE)):
            await woken.wait()
    # What comes from now on ends the next pause at once.
    woken.clear()
