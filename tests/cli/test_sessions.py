"""``agentscope sessions list``, ``show``, ``delete`` and ``prune`` as a user meets them."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.session import Claim, InMemorySessionRepository, SessionRepository
from agentscope_cli._sessions_output import age_text, printable, shortened, size_text
from agentscope_cli._sessions_remove import cut_off, delete_sessions
from session_commands import make_project, on_terminal, outputs, sessions, someone_waits, started, with_repository
from stored import memory_of, plain, store


def said(output: bytes) -> list[Any]:
    return [json.loads(line) for line in output.splitlines()]


def listed(project: Path) -> list[str]:
    return [session["session_id"] for session in said(sessions(project, "list", "--json").stdout)]


def test_without_a_database_there_are_no_sessions_and_none_is_made(project: Path) -> None:
    missing = b".agentscope/sessions.db: there are no sessions: the database does not exist yet\n"
    for options in ([], ["--json"]):
        done = sessions(project, "list", *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", missing)
    done = sessions(project, "prune", "--older-than", "1d")
    assert (done.returncode, done.stderr) == (0, missing)
    assert done.stdout.startswith(b"deleted 0 sessions last saved before ")
    for command in (["show", "alice"], ["export"], ["delete", "alice"]):
        done = sessions(project, *command)
        assert (done.returncode, done.stdout, done.stderr) == (2, b"", missing)
    assert sorted(path.name for path in project.iterdir()) == ["agentapp.yaml"]


def test_sessions_in_memory_can_not_be_looked_at(project: Path) -> None:
    done = sessions(project, "list", "--set", "session.backend=memory")

    assert done.returncode == 2
    assert done.stderr == (
        b"session.backend: memory keeps sessions in the memory of the server's process: "
        b"there is nothing to show; set session.backend: sql\n"
    )


def test_a_backend_that_does_not_exist_is_told(project: Path) -> None:
    done = sessions(project, "list", "--set", "session.backend=redis")

    assert done.returncode == 2
    assert done.stderr.startswith(b"session.backend: no adapter named 'redis'")


def test_the_list_for_programs(filled: Path) -> None:
    alice, bob, carol = said(sessions(filled, "list", "--json").stdout)

    assert [one["session_id"] for one in (alice, bob, carol)] == ["alice", "bob", "carol"]
    assert alice.keys() == {"session_id", "created_at", "updated_at", "version", "size_bytes", "owner"}
    assert alice["version"] == 1
    assert alice["size_bytes"] > 1000
    assert bob["size_bytes"] == len('{"turns":1}')
    assert datetime.now(UTC) - datetime.fromisoformat(bob["updated_at"]) < timedelta(minutes=10)
    assert bob["created_at"].endswith("Z")


def test_the_list_in_a_pipe_has_a_line_for_each(filled: Path) -> None:
    done = sessions(filled, "list")

    alice, bob, carol = done.stdout.decode().splitlines()
    assert done.stderr == b""
    assert bob.split()[0] == "bob"
    assert bob.split()[3:] == ["1", "11", "bytes"]
    assert len({len(alice), len(bob), len(carol)}) == 1


def test_the_list_goes_page_by_page(filled: Path) -> None:
    first = said(sessions(filled, "list", "--json", "--limit", 2).stdout)
    rest = said(sessions(filled, "list", "--json", "--after", first[-1]["session_id"]).stdout)

    assert [one["session_id"] for one in first] == ["alice", "bob"]
    assert [one["session_id"] for one in rest] == ["carol"]
    end = sessions(filled, "list", "--after", "carol")
    assert (end.returncode, end.stdout, end.stderr) == (0, b"", b"no more sessions\n")


def test_a_long_list_is_complete(project: Path) -> None:
    async def fill(repository: SessionRepository) -> None:
        for number in range(1203):
            await store(repository, f"s{number:04}", counter=plain(1))

    with_repository(project, fill)

    assert listed(project) == [f"s{number:04}" for number in range(1203)]
    assert len(said(sessions(project, "list", "--json", "--limit", 700).stdout)) == 700
    shown = on_terminal(project, "list").shown
    assert shown.count(" just now ") + shown.count(" ago ") == 50
    assert "there are more: --after s0049" in shown


def test_the_list_on_a_terminal_is_a_table(filled: Path) -> None:
    header, alice, *_ = on_terminal(filled, "list").shown.splitlines()
    assert "created (UTC)" in header
    assert alice.split()[0] == "alice"
    assert "just now" in alice or "ago" in alice

    _, alice, *_ = on_terminal(filled, "list", "--wide").shown.splitlines()
    assert alice.count("T") == 2


def test_owners_are_shown_where_sessions_are(project: Path, elsewhere: Path) -> None:
    async def fill(repository: SessionRepository) -> None:
        await store(repository, "nobody's", counter=plain(1))
        await store(repository, "s", "ada\x07", counter=plain(1))

    with_repository(project, fill)

    first, second = said(sessions(project, "list", "--json").stdout)
    assert (first["owner"], second["owner"]) == (None, "ada\x07")
    plain_lines = sessions(project, "list").stdout.decode().splitlines()
    assert [line.split()[-1] for line in plain_lines] == ["byte", "ada\\x07"]
    header, *rows = on_terminal(project, "list").shown.splitlines()
    assert "owner" in header
    assert [row.split()[-1] for row in rows] == ["byte", "ada\\x07"]
    assert sessions(project, "show", "s").stdout.decode().splitlines()[:2] == ["session  s", "owner    ada\\x07"]
    assert b"owner" not in sessions(project, "show", "nobody's").stdout
    assert said(sessions(project, "show", "s", "--json").stdout)[0]["owner"] == "ada\x07"

    sessions(elsewhere, "import", data=sessions(project, "export").stdout)
    assert [one["owner"] for one in said(sessions(elsewhere, "list", "--json").stdout)] == [None, "ada\x07"]


def test_an_id_can_not_write_to_the_terminal(project: Path) -> None:
    async def fill(repository: SessionRepository) -> None:
        await store(repository, "a\x1b[2J\nb", memory=memory_of(Msg("x\x1b[2J", "said\x1b[2J\x07", "user")))

    with_repository(project, fill)

    assert sessions(project, "list").stdout.startswith(b"a\\x1b[2J\\nb  ")
    shown = on_terminal(project, "list").shown + on_terminal(project, "show", "a\x1b[2J\nb").shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown


def test_a_session_is_shown_in_short(filled: Path) -> None:
    lines = sessions(filled, "show", "alice").stdout.decode().splitlines()

    assert lines[0] == "session  alice"
    assert lines[2].endswith("version 1")
    assert "module counter: 33 bytes" in lines
    assert '  {"turns":24,"emoji":"🎈\\u0000"}' in lines
    assert any(line.startswith("  /content: 24 items, ") for line in lines)
    assert "the last 10 of 24 messages:" in lines
    assert lines[-10:] == [f"  user Alice: message {number}" for number in range(14, 24)]


def test_a_session_without_messages_is_shown_as_well(filled: Path) -> None:
    assert b"message" not in sessions(filled, "show", "bob").stdout


def test_the_whole_state_of_a_session_for_programs(filled: Path) -> None:
    [session] = said(sessions(filled, "show", "alice", "--json").stdout)

    assert (session["session_id"], session["version"]) == ("alice", 1)
    assert session["modules"]["counter"] == {"turns": 24, "emoji": "🎈\0"}
    memory = session["modules"]["memory"]
    assert memory["_compressed_summary"] == "the past"
    assert [entry[0]["content"] for entry in memory["content"]] == [f"message {number}" for number in range(24)]


def test_a_session_that_is_not_there_is_told_with_one_like_it(filled: Path) -> None:
    done = sessions(filled, "show", "alicia")
    assert (done.returncode, done.stderr) == (2, b"session 'alicia' does not exist; did you mean 'alice'?\n")
    done = sessions(filled, "show", "x", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"session 'x' does not exist\n")


def test_sessions_are_deleted_and_those_that_are_not_there_are_told(filled: Path) -> None:
    done = sessions(filled, "delete", "alice", "dave", "carol", "alice")

    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        b"deleted 2 sessions\n",
        b"session 'dave' does not exist\n",
    )
    assert listed(filled) == ["bob"]
    done = sessions(filled, "delete", "bob", "--json")
    assert (done.returncode, said(done.stdout)) == (0, [{"deleted": ["bob"], "not_found": [], "in_use": []}])
    assert listed(filled) == []


async def test_a_session_in_use_is_not_deleted_and_the_others_are(capsys: pytest.CaptureFixture[str]) -> None:
    repository = InMemorySessionRepository()
    for session_id in ("a", "b"):
        await store(repository, session_id, counter=plain(1))
    await repository.take_lease(Claim("a", "a server"), 60, waits=False)

    with pytest.raises(click.exceptions.Exit) as caught:
        await delete_sessions(repository, ["a", "b"], as_json=False, patience=0.05)

    assert caught.value.exit_code == 2
    assert [summary.session_id for summary in await repository.list_sessions()] == ["a"]
    out, err = capsys.readouterr()
    assert (out, err) == (
        "deleted 1 session\n",
        "session 'a' is in use by a running server; try again or stop it\n",
    )


def age_sessions(project: Path, **days: int) -> None:
    """Let sessions be last saved so many days ago."""
    with closing(sqlite3.connect(project / ".agentscope" / "sessions.db")) as connection, connection:
        for session_id, ago in days.items():
            connection.execute(
                "UPDATE sessions SET updated_at = datetime('now', ?) WHERE session_id = ?",
                (f"-{ago} days", session_id),
            )


def test_old_sessions_are_pruned(filled: Path) -> None:
    age_sessions(filled, alice=40, bob=20)

    dry = sessions(filled, "prune", "--older-than", "30d", "--dry-run")
    assert (dry.returncode, dry.stdout.split()[:4]) == (0, b"would delete 1 session".split())
    assert listed(filled) == ["alice", "bob", "carol"]
    done = sessions(filled, "prune", "--older-than", "30d")
    assert (done.returncode, done.stdout.split()[:3]) == (0, b"deleted 1 session".split())
    assert listed(filled) == ["bob", "carol"]
    [report] = said(sessions(filled, "prune", "--json", "--set", "session.ttl=864000").stdout)
    assert (report["sessions"], report["dry_run"]) == (1, False)
    assert datetime.now(UTC) - datetime.fromisoformat(report["before"]) > timedelta(days=10)
    assert listed(filled) == ["carol"]


def test_many_sessions_are_pruned_in_batches_but_for_those_in_use(project: Path) -> None:
    async def fill(repository: SessionRepository) -> None:
        for number in range(250):
            await store(repository, f"s{number}", counter=plain(1))
        await repository.take_lease(Claim("s7", "a server"), 60, waits=False)

    with_repository(project, fill)

    assert sessions(project, "prune", "--older-than", "0s").stdout.startswith(b"deleted 249 sessions ")
    assert listed(project) == ["s7"]


def test_pruning_needs_an_age(filled: Path) -> None:
    done = sessions(filled, "prune")

    assert done.returncode == 2
    assert done.stderr == (b"say how old a session must be: --older-than 30d, or session.ttl in the configuration\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1.5h", 5400), ("30d", 30 * 86400), ("2w", 14 * 86400)],
)
def test_an_age_has_a_unit(text: str, seconds: float) -> None:
    ago = datetime.now(UTC) - cut_off(text, None)
    assert abs(ago.total_seconds() - seconds) < 5


@pytest.mark.parametrize("text", ["30", "d", "-3d", "3 d", "3y", "99999999999999w", "4000000d"])
def test_what_is_no_age_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"^--older-than: "):
        cut_off(text, None)


def test_a_store_that_fails_ends_in_a_message(filled: Path) -> None:
    with closing(sqlite3.connect(filled / ".agentscope" / "sessions.db")) as connection, connection:
        connection.execute("DROP TABLE session_items")

    done = sessions(filled, "export")

    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"session_items" in done.stderr


def test_postgres_has_the_same_commands(tmp_path: Path, postgres_url: str) -> None:
    project = make_project(tmp_path / "project", f"session:\n  url: {postgres_url}\n")

    assert sessions(project, "list").stderr.endswith(b"there are no sessions: the database does not exist yet\n")
    assert b"run: agentscope db upgrade" in sessions(project, "import").stderr

    (project / "agentapp.yaml").write_text(f"app: app:App\nsession:\n  url: {postgres_url}\n  auto_migrate: true\n")

    async def fill(repository: SessionRepository) -> None:
        await store(repository, "alice", memory=memory_of(Msg("Alice", "hello", "user")))
        await store(repository, "bob", counter=plain({"turns": 1}))

    with_repository(project, fill)
    assert listed(project) == ["alice", "bob"]
    assert sessions(project, "show", "alice").stdout.endswith(b"conversation:\n  user Alice: hello\n")
    assert sessions(project, "delete", "alice").stdout == b"deleted 1 session\n"
    assert sessions(project, "prune", "--older-than", "0s").stdout.startswith(b"deleted 1 session ")
    assert listed(project) == []


def test_a_reader_that_leaves_ends_a_list_quietly(filled: Path) -> None:
    with started(filled, "list") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_ctrl_c_while_a_session_is_waited_for_leaves_its_place_to_others(filled: Path) -> None:
    def interrupt() -> None:
        with started(filled, "delete", "alice") as process:
            while not someone_waits(filled):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert outputs(process) == (b"", b"")
            assert process.returncode == 130

    async def hold(repository: SessionRepository) -> None:
        claim = Claim("alice", "a server")
        assert await repository.take_lease(claim, 60, waits=False) is not None
        await asyncio.to_thread(interrupt)
        assert not someone_waits(filled)

    with_repository(filled, hold)


def test_help_needs_no_library_of_the_server() -> None:
    program = (
        "import sys\nfrom agentscope_cli.main import cli\n"
        "print(sorted(cli.commands['sessions'].commands), {'pydantic', 'sqlalchemy', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stdout == b"['delete', 'export', 'import', 'list', 'prune', 'show'] set()\n"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("ünï 🎈") == "ünï 🎈"
    assert printable("a\x1b\n\u202e") == "a\\x1b\\n\\u202e"


def test_a_text_is_shortened_to_a_width() -> None:
    assert shortened("a  b\n c", 10) == "a b c"
    assert shortened("x" * 10, 10) == "x" * 10
    assert shortened("x" * 11, 10) == "x" * 9 + "…"
    assert shortened("\x00" * 5, 10) == "\\x00\\x00\\…"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (5 * 1024**2, "5.0 MiB")],
)
def test_a_size_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7200, "2 hours ago"), (86400 * 400, "400 days ago")],
)
def test_an_age_for_people(seconds: int, text: str) -> None:
    now = datetime.now(UTC)
    assert age_text(now - timedelta(seconds=seconds), now) == text
