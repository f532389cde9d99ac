"""Trying again what failed in passing, and saying what failed for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeVar

from sqlalchemy import Connection

from agentscope.errors import SessionStoreError
from agentscope_adapters.storage._database import Database, Failure, Runner

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_PAUSES: Final = (0.0, 0.1, 0.3, 0.6)
"""Seconds before each repetition. Most connections that are found broken are so since long: the first is at once."""

_PATIENCE: Final = 10.0
"""Seconds after which a failure is not tried again: a turn waits for the answer."""


class Retries:
    """Calls of a database, each of which can be made twice without harm."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """What ``call`` returns; it is tried again when it fails in passing.

        Raises ``SessionStoreError`` when it fails for good, or for too long.
        """
        started = asyncio.get_running_loop().time()
        for pause in _PAUSES:
            try:
                return await call()
            except Exception as error:
                failure = self._database.failure(error)
                if failure is None:
                    raise
                late = asyncio.get_running_loop().time() - started > _PATIENCE
                if late or not failure.passes:
                    raise self._error(failure) from error
                logger.debug("%s: %s; trying again", self._database.label, failure.reason)
            await asyncio.sleep(pause)
        with self.explaining():
            return await call()

    @contextmanager
    def explaining(self) -> Generator[None]:
        """Turns the database's errors into ``SessionStoreError``, without trying again."""
        try:
            yield
        except Exception as error:
            failure = self._database.failure(error)
            if failure is None:
                raise
            raise self._error(failure) from error

    def explained(self, run: Runner) -> Runner:
        """``run`` with ``explaining``."""

        async def explained(transaction: Callable[[Connection], _T], /) -> _T:
            with self.explaining():
                return await run(transaction)

        return explained

    def _error(self, failure: Failure) -> SessionStoreError:
        return SessionStoreError(f"the session store {self._database.label}: {failure.reason}; {failure.remedy}")
