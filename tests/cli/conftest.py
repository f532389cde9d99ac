"""Projects with stored sessions."""

from pathlib import Path

import pytest

from agentscope.message import Msg
from agentscope.session import SessionRepository
from session_commands import make_project, with_repository
from stored import memory_of, plain, store


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project on SQLite, without sessions."""
    return make_project(tmp_path / "project")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another one."""
    return make_project(tmp_path / "elsewhere")


@pytest.fixture
def filled(project: Path) -> Path:
    """The project, with the sessions alice (24 messages, and a counter), bob and carol."""

    async def fill(repository: SessionRepository) -> None:
        messages = [Msg("Alice", f"message {number}", "user", id=f"m{number}") for number in range(24)]
        await store(repository, "alice", memory=memory_of(*messages), counter=plain({"turns": 24, "emoji": "🎈\0"}))
        for session_id in ("bob", "carol"):
            await store(repository, session_id, counter=plain({"turns": 1}))

    with_repository(project, fill)
    return project
