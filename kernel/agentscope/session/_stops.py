"""Ending an invocation that runs in another process: requests that are left in the store, and answered there."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from itertools import count

from agentscope.errors import SessionStoreError
from agentscope.message import new_id
from agentscope.session._invocations import InvocationStore, StopRequest

_log = logging.getLogger("agentscope.session")

_PATIENCE = 1.0
"""How many seconds the process that runs an invocation has to say that it does."""

_REQUEST_SECONDS = 60.0
"""How long a request is left behind by a process that died."""

_FIRST_LOOK = 0.1
"""How long something has to run before requests are looked for: most invocations of a busy server end sooner."""

_SECONDS_AGAIN = 0.2
_SECONDS_AFTER_FAILURE = 1.0


@dataclass
class _Left:
    """A request that was left. ``is_answered`` is known once it is withdrawn."""

    is_answered: bool = False


class StopRequests:
    """Leaves requests for other processes, and does what others request of this one.

    ``store`` gives the store of the moment, None when it knows no other process. ``stop_here`` ends what runs in this
    process, and returns False when that is nothing.
    """

    def __init__(self, store: Callable[[], InvocationStore | None], stop_here: Callable[[StopRequest], bool]) -> None:
        self._store = store
        self._stop_here = stop_here
        self._own = set[str]()
        self._is_busy = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Something runs in this process: look for requests until ``rest``."""
        if self._listening is None:
            # In the context of no invocation: it would keep that one's state.
            self._listening = asyncio.get_running_loop().create_task(self._listen(), context=Context())
        self._is_busy.set()

    def rest(self) -> None:
        """Nothing runs in this process any more."""
        self._is_busy.clear()

    async def cancel(self, session_id: str, owner: str | None) -> bool:
        """Ask for the end of the session's invocation, wherever it runs; False when no process says that it does.

        Raises ``SessionStoreError`` when the store fails.
        """
        store = self._store()
        if store is None:
            return False
        request = StopRequest(new_id(), session_id, "cancelled", owner)
        # It is for what runs now: should it be left behind, it must not meet the next turn.
        async with self._left(store, request, 2 * _PATIENCE) as left:
            with suppress(TimeoutError), store.watch_stops(request.request_id) as pause:
                async with asyncio.timeout(_PATIENCE):
                    for attempt in count():
                        if await store.is_stop_answered(request.request_id):
                            break
                        await pause(attempt)
        return left.is_answered

    @asynccontextmanager
    async def replacing(self, session_id: str, owner: str | None) -> AsyncGenerator[None]:
        """While the block runs, whoever has the lease of the owner's session in another process is asked to end."""
        store = self._store()
        if store is None:
            yield
            return
        async with self._left(store, StopRequest(new_id(), session_id, "replaced", owner), _REQUEST_SECONDS):
            yield

    async def aclose(self) -> None:
        """Look for no further requests."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])

    @asynccontextmanager
    async def _left(self, store: InvocationStore, request: StopRequest, ttl: float) -> AsyncGenerator["_Left"]:
        left = _Left()
        self._own.add(request.request_id)
        try:
            await store.request_stop(request, ttl)
            yield left
        finally:
            # Should this be cut short, the request goes when its time is over.
            with suppress(SessionStoreError):
                left.is_answered = await store.withdraw_stop(request.request_id)
            self._own.discard(request.request_id)

    async def _listen(self) -> None:
        while True:
            await self._is_busy.wait()
            await asyncio.sleep(_FIRST_LOOK)
            store = self._store()
            try:
                if store is not None and self._is_busy.is_set():
                    await self._watch(store)
            except SessionStoreError as error:
                _log.debug("requests to end invocations can't be read: %s", error)
                await asyncio.sleep(_SECONDS_AFTER_FAILURE)
            except Exception:
                # A boundary: without this task nothing here could be cancelled from elsewhere.
                _log.exception("looking for requests to end invocations failed")
                await asyncio.sleep(_SECONDS_AFTER_FAILURE)

    async def _watch(self, store: InvocationStore) -> None:
        with store.watch_stops() as pause:
            attempt = 0
            while self._is_busy.is_set() and store is self._store():
                # One that is not for this process now may be in a moment: its lease is on the way here.
                if await self._answer(store):
                    await asyncio.sleep(_SECONDS_AGAIN)
                else:
                    await pause(attempt)
                    attempt += 1

    async def _answer(self, store: InvocationStore) -> bool:
        """Do what is requested; return whether requests of others are left."""
        requests = [each for each in await store.stop_requests() if each.request_id not in self._own]
        # All of them before the first is answered: what they ask for may have ended by then.
        stopped = [each for each in requests if self._stop_here(each)]
        for request in stopped:
            await store.answer_stop(request.request_id)
        return len(stopped) < len(requests)
