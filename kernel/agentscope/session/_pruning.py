"""Deleting sessions that nobody has used for a long time, a few at a time."""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agentscope.errors import SessionStoreError
from agentscope.session._port import SessionRepository

_log = logging.getLogger("agentscope.session")

_LONGEST_PAUSE = 60.0
_ROUNDS = 10
"""An idle session is deleted at most a tenth of its time, and a minute, too late."""


class Pruner:
    """Deletes sessions that were last saved more than ``ttl`` seconds ago, from ``start`` to ``aclose``.

    ``repository`` gives the store of the moment. Replicas may prune side by side.
    """

    def __init__(self, repository: Callable[[], SessionRepository], ttl: float) -> None:
        self._repository = repository
        self._ttl = ttl
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop after the batch that is being deleted, or before it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            # Replicas that were started together don't all come at the same moment.
            pause = min(_LONGEST_PAUSE, self._ttl / _ROUNDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            try:
                pruned = await self._prune()
            except SessionStoreError as error:
                _log.warning("idle sessions were not deleted: %s", error)
            except Exception:
                # A boundary: the next round may go better.
                _log.exception("idle sessions were not deleted")
            else:
                if pruned:
                    _log.info("idle sessions deleted, after %g seconds: %d", self._ttl, pruned)

    async def _prune(self) -> int:
        now = asyncio.get_running_loop().time
        total = 0
        while True:
            begun = now()
            pruned = await self._repository().prune(datetime.now(UTC) - timedelta(seconds=self._ttl))
            if not pruned:
                return total
            total += pruned
            # As long as the batch took, the store is there for the turns alone.
            await asyncio.sleep(now() - begun)
