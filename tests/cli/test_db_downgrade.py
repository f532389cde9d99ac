"""``agentscope db downgrade``: back to an older schema, and forth again."""

import subprocess
from pathlib import Path

import pytest

from agentscope.session import SessionRepository
from agentscope_adapters.storage._schema import REVISIONS
from processes import agentscope
from session_commands import make_project, sessions, with_repository
from stored import memory_of, plain, said, store

OLDEST, NEWEST = REVISIONS[0], REVISIONS[-1]


def db(command: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return agentscope("db", command, *arguments)


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project with a session, on SQLite or on Postgres."""
    configuration = ""
    if request.param == "postgres":
        url = str(request.getfixturevalue("postgres_url"))
        configuration = f"session:\n  url: {url}\n  auto_migrate: true\n"
    project = make_project(tmp_path / "either", configuration)

    async def fill(repository: SessionRepository) -> None:
        await store(repository, "alice", memory=memory_of(said("hello")), counter=plain({"turns": 1}))

    with_repository(project, fill)
    return project


def test_the_schema_goes_back_and_forth_and_the_sessions_stay(either: Path) -> None:
    before = sessions(either, "show", "alice").stdout.splitlines()[-1]

    down = db("downgrade", OLDEST, either)
    assert (down.returncode, down.stderr) == (0, "")
    assert down.stdout.endswith(f": schema {NEWEST} -> {OLDEST}\n")
    assert "p%40ss" not in down.stdout
    assert db("current", either).stdout == f"{OLDEST}\n"
    assert db("downgrade", OLDEST, either).stdout.endswith(f": already at {OLDEST}\n")

    assert db("upgrade", either).stdout.endswith(f": schema {OLDEST} -> {NEWEST}\n")
    assert before.endswith(b"user: hello")
    assert sessions(either, "show", "alice").stdout.splitlines()[-1] == before


def test_an_unknown_revision_is_told_with_those_that_are_known(filled: Path) -> None:
    done = db("downgrade", "0815", filled)

    assert (done.returncode, done.stdout) == (2, "")
    assert "0815" in done.stderr
    assert ", ".join(REVISIONS) in done.stderr
    assert db("check", filled).returncode == 0


def test_without_a_database_there_is_nothing_to_take_back(project: Path) -> None:
    done = db("downgrade", OLDEST, project)

    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in project.iterdir()) == ["agentapp.yaml"]


def test_sessions_in_memory_have_no_schema(project: Path) -> None:
    done = db("downgrade", OLDEST, project, "--set", "session.backend=memory")

    assert done.returncode == 2
    assert done.stderr.startswith("session.backend: memory has no schema")


def test_the_help_says_to_stop_the_servers() -> None:
    assert "Stop the servers first." in " ".join(db("downgrade", "--help").stdout.split())
