"""The databases that replicas share, and what a test looks up there by itself."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncpg

_SECONDS = 60
_MARGIN = 0.05
"""Seconds."""


@dataclass(frozen=True)
class Database:
    """An SQLite file, or a database on Postgres. ``settings`` are those of ``session`` that name it."""

    settings: dict[str, Any]

    @classmethod
    def sqlite(cls, folder: Path) -> "Database":
        """A file in that folder, which need not exist yet."""
        return cls({"url": f"sqlite:///{folder / 'sessions.db'}"})

    @classmethod
    def postgres(cls, url: str) -> "Database":
        """An empty database; the first replica makes its tables."""
        return cls({"url": url, "auto_migrate": True})

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.settings["url"])

    async def scalar(self, query: str) -> Any:
        """The first value of the first row; None without one."""
        if self.url.startswith("sqlite:"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection:
                row = connection.execute(query).fetchone()
                return None if row is None else row[0]
        opened = cast("Any", await asyncpg.connect(self.url))  # pyright: ignore[reportUnknownMemberType]
        try:
            return await opened.fetchval(query)
        finally:
            await opened.close()

    async def until_awaited(self, session_id: str) -> None:
        """Return when a process waits for the session's lease, which another has."""
        await self._until(lambda: f"{_lease(session_id)} AND next_owner IS NOT NULL)")

    async def until_expired(self, session_id: str) -> None:
        """Return when nobody has a live lease on the session."""
        # All processes are on this machine: they have one clock.
        await self._until(lambda: f"NOT {_lease(session_id)} AND expires_at > {time.time() - _MARGIN})")

    async def _until(self, condition: Callable[[], str]) -> None:
        async with asyncio.timeout(_SECONDS):
            while not await self.scalar(f"SELECT {condition()}"):  # noqa: ASYNC110 - a row that nobody announces
                await asyncio.sleep(0.01)


def _lease(session_id: str) -> str:
    return f"EXISTS (SELECT 1 FROM session_leases WHERE session_id = '{session_id}'"
