"""The store whose sessions a command is about, opened without starting the app."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from agentscope.errors import SessionError, UserError
from agentscope.runtime import open_sessions
from agentscope.runtime.settings import SessionSettings, load_settings
from agentscope.session import SessionRepository

_TERMINATED = 143
"""The exit status after SIGTERM, as shells have it."""


class NoDatabaseError(UserError):
    """The database does not exist, or has no tables."""


@dataclass(frozen=True, slots=True)
class ProjectStore:
    """The store of the sessions of the project in the folder ``project``."""

    settings: SessionSettings
    project: Path

    def run(self, work: Callable[[SessionRepository], Awaitable[None]], *, creates: bool = False) -> None:
        """Open the store and do something with it, to the end or until a signal; then close it.

        With ``creates`` a database that does not exist is made; without, ``NoDatabaseError`` is raised.
        """
        try:
            asyncio.run(self._run(work, creates))
        except asyncio.CancelledError:
            raise click.exceptions.Exit(_TERMINATED) from None
        except SessionError as error:
            raise UserError(str(error)) from error

    async def _run(self, work: Callable[[SessionRepository], Awaitable[None]], creates: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        if not creates:
            await self._require_database()
        async with open_sessions(self.settings, self.project) as repository:
            await work(repository)

    async def _require_database(self) -> None:
        if self.settings.backend != "sql":
            # Another's adapter, which is opened as a server opens it.
            return
        from agentscope_adapters.storage.migrations import read_schema

        state = await read_schema(self.settings, self.project)
        if state.found is None:
            raise NoDatabaseError(f"{state.database}: there are no sessions: the database does not exist yet")


def find_store(project: Path, config: Path | None, assignments: Sequence[str]) -> ProjectStore:
    """The store of a project. Raises ``UserError`` for a backend that keeps nothing."""
    loaded = load_settings(project, config=config, assignments=assignments)
    session = loaded.settings.session
    if session.backend == "memory":
        raise UserError(
            "session.backend: memory keeps sessions in the memory of the server's process: "
            "there is nothing to show; set session.backend: sql"
        )
    return ProjectStore(session, loaded.project)
