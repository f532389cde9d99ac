"""``agentscope sessions export`` and ``import``: into files and pipes, to their end and interrupted."""

import asyncio
import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agentscope.message import Msg
from agentscope.session import Claim, SessionRepository
from agentscope_cli._sessions_transfer import opened_for_writing
from processes import environment
from session_commands import (
    command_line,
    feed,
    make_project,
    on_terminal,
    outputs,
    sessions,
    someone_waits,
    started,
    with_repository,
)
from stored import entry, plain, store

SIGNALS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
TIME = "2026-01-02T03:04:05Z"


def lines_of(session_id: str, items: int, text: str) -> Iterable[bytes]:
    """A session of an export, with a message for each item."""
    modules: Any = {"memory": {"state": {"content": []}, "lists": ["/content"]}}
    fields: Any = {"session_id": session_id, "created_at": TIME, "updated_at": TIME, "version": 3, "modules": modules}
    yield line(session=fields)
    for start in range(0, items, 1000):
        numbers = range(start, min(start + 1000, items))
        values = [entry(Msg("u", text, "user", id=f"m{number}", timestamp=TIME)) for number in numbers]
        yield line(items={"module": "memory", "pointer": "/content", "start": start, "values": values})
    yield line(end={"session_id": session_id, "items": items})


def line(**value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


FIRST = line(format="agentscope-sessions", version=1)


def an_export(*session_ids: str, items: int = 3, text: str = "hello") -> bytes:
    """A whole export."""
    parts = [part for session_id in session_ids for part in lines_of(session_id, items, text)]
    return b"".join([FIRST, *parts, line(complete={"sessions": len(session_ids)})])


def listed(project: Path) -> list[str]:
    output = sessions(project, "list", "--json").stdout
    return [json.loads(one)["session_id"] for one in output.splitlines()]


def test_an_export_goes_through_a_pipe_into_another_project(filled: Path, elsewhere: Path) -> None:
    exported = sessions(filled, "export")
    assert (exported.returncode, exported.stderr) == (0, b"")

    done = sessions(elsewhere, "import", data=exported.stdout)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"imported 3 sessions\n", b"")
    assert sessions(elsewhere, "export").stdout == exported.stdout
    there, here = (sessions(project, "show", "alice", "--json").stdout for project in (filled, elsewhere))
    assert there == here


def test_sessions_move_between_sqlite_and_postgres(filled: Path, tmp_path: Path, postgres_url: str) -> None:
    settings = f"session:\n  url: {postgres_url}\n  auto_migrate: true\n"
    postgres = make_project(tmp_path / "postgres", settings)
    exported = sessions(filled, "export").stdout

    done = sessions(postgres, "import", data=exported)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"imported 3 sessions\n", b"")
    assert sessions(postgres, "export").stdout == exported

    back = sessions(filled, "import", "--on-existing", "replace", data=sessions(postgres, "export", "alice").stdout)
    assert (back.returncode, back.stdout) == (0, b"imported 1 session\n")
    assert sessions(filled, "export").stdout == exported


def test_a_server_can_go_on_with_an_imported_session(elsewhere: Path) -> None:
    sessions(elsewhere, "import", data=an_export("s"))

    async def another_turn(repository: SessionRepository) -> None:
        await store(repository, "s", counter=plain(1))

    with_repository(elsewhere, another_turn)
    assert json.loads(sessions(elsewhere, "show", "s", "--json").stdout)["version"] == 4


def test_an_export_of_some_sessions_into_a_file(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.ndjson"

    done = sessions(filled, "export", "carol", "bob", "-o", file)

    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == f"exported 2 sessions to {file}\n".encode()
    exported = [json.loads(one) for one in file.read_bytes().splitlines()]
    assert [one["session"]["session_id"] for one in exported if "session" in one] == ["carol", "bob"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sessions(tmp_path / "project", "import", file, "--on-existing", "skip").stdout == (
        b"imported 0 sessions (2 skipped)\n"
    )


def test_an_export_that_fails_leaves_the_file_as_it_was(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.ndjson"
    file.write_text("what was there")

    done = sessions(filled, "export", "bob", "dave", "-o", file)

    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"session 'dave' does not exist\n")
    assert file.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ndjson", "project"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_file_is_there_when_it_is_whole_or_not_at_all(tmp_path: Path, error: type[BaseException]) -> None:
    def fail_to_write() -> None:
        with opened_for_writing(tmp_path / "out"):
            assert [path.name.startswith(".out.") for path in tmp_path.iterdir()] == [True]
            raise error

    with pytest.raises(error):
        fail_to_write()
    assert list(tmp_path.iterdir()) == []


def test_an_export_follows_a_link_and_leaves_a_device_in_its_place(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").touch()
    (tmp_path / "device").symlink_to("/dev/null")

    for name in ("link", "device"):
        assert sessions(filled, "export", "-o", tmp_path / name).returncode == 0

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes().startswith(FIRST)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("command", [["export", "-o"], ["import"]], ids=["export", "import"])
@pytest.mark.parametrize("name", ["missing/file", "."])
def test_a_file_that_can_not_be_used_is_named(filled: Path, tmp_path: Path, command: list[str], name: str) -> None:
    file = tmp_path / name

    done = sessions(filled, *command, file)

    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"{file}: ")
    assert b"Traceback" not in done.stderr


def test_a_full_disk_is_told(filled: Path) -> None:
    done = sessions(filled, "export", "-o", "/dev/full")

    assert (done.returncode, done.stderr) == (2, b"/dev/full: No space left on device\n")


def test_an_import_from_a_terminal_says_that_it_waits(project: Path) -> None:
    done = on_terminal(project, "import", typed=b"\x04")

    assert done.returncode == 2
    assert "reading an export from this terminal; Ctrl-D ends it" in done.shown


def test_what_to_do_with_sessions_that_exist(elsewhere: Path) -> None:
    sessions(elsewhere, "import", data=an_export("a", "b", text="old"))
    newer = an_export("0", "b", "c", text="new")

    failed = sessions(elsewhere, "import", data=newer)
    assert (failed.returncode, failed.stdout) == (2, b"imported 1 session\n")
    assert failed.stderr.startswith(b"line 5: session 'b' exists already; import with --on-existing skip")
    assert listed(elsewhere) == ["0", "a", "b"]

    skipped = sessions(elsewhere, "import", "--on-existing", "skip", data=newer)
    assert (skipped.returncode, skipped.stdout) == (0, b"imported 1 session (2 skipped)\n")
    assert b"user u: old" in sessions(elsewhere, "show", "b").stdout

    replaced = sessions(elsewhere, "import", "--on-existing", "replace", data=newer)
    assert (replaced.returncode, replaced.stdout) == (0, b"imported 3 sessions\n")
    assert b"user u: new" in sessions(elsewhere, "show", "b").stdout


def test_of_an_export_that_is_cut_the_whole_sessions_are_imported(elsewhere: Path) -> None:
    export = an_export("a", "b")
    cut = export[: export.index(b'"end":{"session_id":"b"')]

    done = sessions(elsewhere, "import", data=cut)

    assert (done.returncode, done.stdout) == (2, b"imported 1 session\n")
    assert done.stderr == b"line 7: the export is cut in session 'b', which was not imported\n"
    assert listed(elsewhere) == ["a"]
    assert sessions(elsewhere, "import", data=export).returncode == 2
    assert sessions(elsewhere, "import", "--on-existing", "skip", data=export).returncode == 0
    assert listed(elsewhere) == ["a", "b"]


def test_progress_is_shown_on_a_terminal_alone(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.ndjson"

    shown = on_terminal(filled, "export", "-o", file).shown
    assert "3 of 3 sessions, 24 items" in shown
    assert "exported 3 sessions to" in shown
    assert "3 of 3" not in on_terminal(filled, "export").shown
    shown = on_terminal(filled, "import", file, "--on-existing", "replace").shown
    assert "3 sessions, 24 items" in shown
    assert shown.endswith("imported 3 sessions\r\n")


@SIGNALS
def test_an_interrupted_export_ends_at_once(project: Path, number: signal.Signals, status: int) -> None:
    sessions(project, "import", data=an_export("large", items=4000, text="x" * 300))
    with started(project, "export") as process:
        assert process.stdout is not None
        # It has begun, and waits: what it writes is more than a pipe holds.
        assert process.stdout.read(10) == FIRST[:10]
        process.send_signal(number)
        assert process.wait(30) == status
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_ends_an_export_quietly(project: Path) -> None:
    sessions(project, "import", data=an_export("large", items=4000, text="x" * 300))
    with started(project, "export") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == FIRST
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


@SIGNALS
def test_an_interrupted_import_leaves_no_half_session_and_no_lease(
    elsewhere: Path, number: signal.Signals, status: int
) -> None:
    export = an_export("a", items=20_000, text="x" * 1000)
    with started(elsewhere, "import") as process:
        # More than it reads ahead: it has begun to write.
        feed(process, export[: -1024 * 1024])
        process.send_signal(number)
        assert process.wait(30) == status
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == (b"imported 0 sessions\n", b"")
    assert listed(elsewhere) == []

    began = time.monotonic()
    assert sessions(elsewhere, "import", data=an_export("a")).returncode == 0
    assert time.monotonic() - began < 8  # it did not wait for a lease


def test_a_session_that_a_server_uses_is_waited_for(elsewhere: Path) -> None:
    sessions(elsewhere, "import", data=an_export("a", text="old"))

    def import_meanwhile(let_go: Callable[[], None]) -> tuple[bytes, bytes]:
        with started(elsewhere, "import", "--on-existing", "replace") as process:
            feed(process, an_export("a", text="new"))
            while not someone_waits(elsewhere):
                assert process.poll() is None
            assert b"user u: old" in sessions(elsewhere, "show", "a").stdout
            let_go()
            return outputs(process)

    async def hold(repository: SessionRepository) -> None:
        claim, loop = Claim("a", "a server"), asyncio.get_running_loop()

        def let_go() -> None:
            asyncio.run_coroutine_threadsafe(repository.release_leases([claim]), loop).result()

        assert await repository.take_lease(claim, 60, waits=False) is not None
        assert await asyncio.to_thread(import_meanwhile, let_go) == (b"imported 1 session\n", b"")

    with_repository(elsewhere, hold)
    assert b"user u: new" in sessions(elsewhere, "show", "a").stdout


def test_a_session_of_100_000_items_moves_in_bounded_memory_and_time(
    project: Path, elsewhere: Path, tmp_path: Path
) -> None:
    count = 100_000
    first, second = tmp_path / "first", tmp_path / "second"
    source = tmp_path / "source"
    source.write_bytes(an_export("large", items=count, text="x" * 800))

    began = time.monotonic()
    peaks = [
        peak(project, "import", source),
        peak(project, "export", "-o", first),
        peak(elsewhere, "import", first),
        peak(elsewhere, "export", "-o", second),
    ]

    assert time.monotonic() - began < 120
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().count(b'"id":"m') == count
    assert first.stat().st_size > 90_000_000
    baseline = peak(project, "list")
    assert max(peaks) - baseline < 64 * 1024 * 1024, peaks


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(project: Path, command: str, *arguments: object) -> int:
    """Run a command and return the most memory that it had, in bytes."""
    # From a small process: what is measured begins with the memory of the one that starts it.
    measured = [sys.executable, "-c", PEAK, *command_line(project, command, *arguments)]
    done = subprocess.run(measured, capture_output=True, check=True, timeout=60, env=environment())
    return int(done.stdout) * 1024
