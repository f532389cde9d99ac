"""Keeping the lines of invocations for a while: written in batches, those of all invocations together."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import Context

from agentscope.errors import SessionStoreError
from agentscope.session._invocations import InvocationRecord, InvocationStore, LineBatch

_log = logging.getLogger("agentscope.session")

LARGEST_RECORDING = 64 * 1024 * 1024
"""Of an invocation no more bytes than that are kept."""

_BATCH_SECONDS = 0.05
"""How long lines wait for others to be written with."""

_WAITING_BYTES = 256 * 1024
"""How much of one invocation may wait to be written before its reader waits too."""

_RENEWALS = 3
"""How many times a running invocation is renewed in the time that it counts as alive."""

_SECONDS_AFTER_FAILURE = 0.5

_PRUNED = 100
_MOST_SECONDS_BETWEEN_PRUNINGS = 60.0


class Recording:
    """The lines of one invocation, on their way to the store."""

    def __init__(self, record: InvocationRecord, wake: Callable[[], None]) -> None:
        self.record = record
        self.waiting: list[str] = []
        self.written = 0
        """How many lines are in the store."""
        self.ended = False
        self.given_up = False
        """Whether no more of it is kept: it is too large, or the store failed."""
        self._wake = wake
        self._size = self._waiting_size = 0
        self._room = asyncio.Event()
        self._room.set()

    async def add(self, lines: Sequence[str]) -> None:
        """Keep these lines as well. Returns when there is room for more."""
        self._append(lines)
        await self._room.wait()

    def end(self, last: str) -> None:
        """Keep the last line there is."""
        if not self.ended:
            self._append([last])
            self.ended = True
            self._wake()

    def next_batch(self) -> LineBatch | None:
        """What waits to be written, until it is said to be ``taken``; None when that is nothing."""
        if self.given_up or not self.waiting:
            return None
        return LineBatch(self.record.invocation_id, self.written + 1, self.waiting.copy(), self.ended)

    def taken(self, batch: LineBatch) -> None:
        """The batch is in the store."""
        del self.waiting[: len(batch.lines)]
        self.written += len(batch.lines)
        self._waiting_size = sum(map(len, self.waiting))
        if self._waiting_size < _WAITING_BYTES:
            self._room.set()

    def give_up(self) -> None:
        """Keep nothing more, and hold up nobody."""
        self.given_up = True
        self.waiting.clear()
        self._room.set()

    def _append(self, lines: Sequence[str]) -> None:
        if self.given_up or self.ended or not lines:
            return
        self.waiting += lines
        size = sum(map(len, lines))
        self._size += size
        self._waiting_size += size
        if self._size > LARGEST_RECORDING:
            _log.warning("invocation %s answers with more than is kept of one", self.record.invocation_id)
            self.give_up()
        elif self._waiting_size >= _WAITING_BYTES:
            self._room.clear()
        self._wake()


class Recorder:
    """Keeps the lines of the invocations of one process.

    ``store`` gives the store of the moment. Lines are kept for ``kept`` seconds after the end. An invocation counts as
    running for ``alive`` seconds unless it is renewed, which one background task does for all.
    """

    def __init__(self, store: Callable[[], InvocationStore], *, kept: float, alive: float) -> None:
        self._store = store
        self._kept = kept
        self._alive = alive
        self._open: dict[str, Recording] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._failing_since: float | None = None

    async def open(self, record: InvocationRecord) -> Recording | InvocationRecord:
        """Begin to keep an invocation.

        When the session has one of that idempotency key already, its record is returned. Raises ``SessionStoreError``.
        """
        try:
            known = await self._store().open_invocation(record, self._alive, self._kept)
        except BaseException:
            # It may have landed all the same, and would keep its key from being used.
            await asyncio.shield(self._forget(record))
            raise
        if known is not None:
            return known
        recording = self._open[record.invocation_id] = Recording(record, self._work.set)
        self._idle.clear()
        if self._task is None:
            # In the context of no invocation: it would keep that one's state.
            self._task = asyncio.get_running_loop().create_task(self._keep(), context=Context())
        return recording

    async def discard(self, recording: Recording) -> None:
        """Forget an invocation of which nothing came, so that its request may be sent again."""
        recording.give_up()
        self._close(recording)
        await self._forget(recording.record)

    async def _forget(self, record: InvocationRecord) -> None:
        try:
            await self._store().forget_invocations([record.invocation_id])
        except SessionStoreError as error:
            _log.warning("invocation %s is not forgotten: %s", record.invocation_id, error)

    async def aclose(self) -> None:
        """Write what is left, once every invocation has ended, and stop."""
        if self._task is None:
            return
        try:
            await self._idle.wait()
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep(self) -> None:
        now = asyncio.get_running_loop().time
        renews = self._alive / _RENEWALS
        prunes = min(self._kept, _MOST_SECONDS_BETWEEN_PRUNINGS)
        renew_at, prune_at = now() + renews, now() + prunes
        while True:
            try:
                if await self._has_work(min(renew_at, prune_at)):
                    await self._write()
                if now() >= renew_at:
                    renew_at = now() + renews
                    await self._renew()
                if now() >= prune_at:
                    prune_at = now() + prunes
                    if await self._store().prune_invocations(_PRUNED):
                        prune_at = now()
            except Exception as error:
                # A boundary: without this task nothing more would be kept.
                unexpected = None if isinstance(error, SessionStoreError) else error
                _log.warning("invocations can't be looked after: %s", error, exc_info=unexpected)

    async def _has_work(self, deadline: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                await self._work.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(_BATCH_SECONDS if self._failing_since is None else _SECONDS_AFTER_FAILURE)
        return True

    async def _write(self) -> None:
        self._work.clear()
        open_now = list(self._open.values())
        batches = [(recording, batch) for recording in open_now if (batch := recording.next_batch()) is not None]
        try:
            if batches:
                await self._store().append_lines([batch for _, batch in batches], self._alive)
        except Exception as error:
            # A boundary, for the same reason. Until they count as abandoned it is tried again.
            self._failed(error)
            self._work.set()
            return
        self._failing_since = None
        for recording, batch in batches:
            recording.taken(batch)
        self._finish()

    def _failed(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            self._failing_since = now
            _log.warning("the lines of invocations are not kept yet: %s", error)
        elif now - self._failing_since > self._alive:
            _log.error("the rest of the lines of %d invocations is not kept: %s", len(self._open), error)
            for recording in list(self._open.values()):
                recording.give_up()
            self._finish()

    def _finish(self) -> None:
        # Of one that was given up the record stays as well, with no end: its key must not begin a second turn.
        for recording in [each for each in self._open.values() if each.ended and not each.waiting]:
            self._close(recording)

    async def _renew(self) -> None:
        running = [invocation_id for invocation_id, recording in self._open.items() if not recording.ended]
        if running:
            await self._store().renew_invocations(running, self._alive)

    def _close(self, recording: Recording) -> None:
        self._open.pop(recording.record.invocation_id, None)
        if not self._open:
            self._idle.set()
