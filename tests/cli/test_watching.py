"""Watching a project: which files count, that no change is lost and none is told twice, and that it ends."""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from watchfiles import Change
from watchfiles import watch as watch_files

from agentscope.errors import ProjectError
from agentscope_cli import _watching
from agentscope_cli._project_files import ProjectFiles
from agentscope_cli._watching import watch_project

SECONDS = 20
MANY_BYTES = 1024 * 1024 + 1


class Watched:
    """A project that is watched, and the calls that came of it, as the names of files below its folder."""

    def __init__(self, project: Path, config: Path | None = None) -> None:
        self.project = project
        self._config = config or project / "agentapp.yaml"
        self.calls: asyncio.Queue[list[str]] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.may_return = asyncio.Event()
        self.may_return.set()
        self.running = 0
        self.most_running = 0

    async def watch(self) -> None:
        """What is tested."""
        await watch_project(self.project, self._config, self._on_change, on_ready=self.ready.set)

    async def _on_change(self, changed: Collection[Path]) -> None:
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        self.calls.put_nowait([self.name_of(path) for path in changed])
        await self.may_return.wait()
        self.running -= 1

    async def next(self) -> list[str]:
        """The files of the next call."""
        return await asyncio.wait_for(self.calls.get(), SECONDS)

    async def all_until_the_next(self) -> set[str]:
        """The files of all calls, until one that a last change makes comes too."""
        append(self.project / "marker.py", "# the last change\n")
        found: set[str] = set()
        while "marker.py" not in found:
            found |= set(await self.next())
        return found - {"marker.py"}

    def name_of(self, path: Path) -> str:
        """A file as seen from the project."""
        return os.path.relpath(path, self.project)


@asynccontextmanager
async def watched(project: Path, config: Path | None = None) -> AsyncGenerator[Watched]:
    """A project that is watched until the end of the block."""
    watch = Watched(project, config)
    task = asyncio.create_task(watch.watch())
    await asyncio.wait_for(watch.ready.wait(), SECONDS)
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=SECONDS)
        assert task.cancelled()
        assert threads() == []


def threads() -> list[threading.Thread]:
    """Those that watch and go on; one that is at its end has a moment for it."""
    found = [thread for thread in threading.enumerate() if thread.name == "agentscope-watch"]
    for thread in found:
        thread.join(1)
    return [thread for thread in found if thread.is_alive()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package, in a folder with a name that nobody expects."""
    folder = tmp_path / "a project's folder"
    (folder / "tools").mkdir(parents=True)
    for name in ("app.py", "agentapp.yaml", ".env", "tools/__init__.py", "tools/weather.py", "marker.py"):
        (folder / name).write_text(f"# {name}\n")
    return folder


def append(file: Path, text: str) -> None:
    """Write more into a file."""
    file.write_text(file.read_text() + text)


def replace(file: Path, text: str) -> None:
    """Save as vim and others do: a new file takes the name of the old."""
    new = file.with_name(f"{file.name}~")
    new.write_text(text)
    new.replace(file)


def swap(project: Path) -> None:
    """Put another folder in the place of the project's."""
    other = project.with_name("other")
    shutil.copytree(project, other)
    (other / "app.py").write_text("# of another folder\n")
    project.rename(project.with_name("gone"))
    other.rename(project)


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "written": (lambda p: (p / "app.py").write_text("# changed\n"), {"app.py"}),
    "saved by rename": (lambda p: replace(p / "app.py", "# changed\n"), {"app.py"}),
    "in a package": (lambda p: (p / "tools/weather.py").write_text("# changed\n"), {"tools/weather.py"}),
    "the configuration": (lambda p: (p / "agentapp.yaml").write_text("app: b:B\n"), {"agentapp.yaml"}),
    "variables": (lambda p: (p / ".env").write_text("A=b\n"), {".env"}),
    "added": (lambda p: (p / "new.py").write_text(""), {"new.py"}),
    "removed": (lambda p: (p / "tools/weather.py").unlink(), {"tools/weather.py"}),
    "renamed": (lambda p: (p / "tools/weather.py").rename(p / "sky.py"), {"tools/weather.py", "sky.py"}),
    "a folder is removed": (lambda p: shutil.rmtree(p / "tools"), {"tools/__init__.py", "tools/weather.py"}),
    "the project is another": (swap, {"app.py"}),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
async def test_a_change_of_the_app_is_told(
    change: Callable[[Path], object], expected: set[str], project: Path
) -> None:
    async with watched(project) as watch:
        change(project)
        assert await watch.all_until_the_next() == expected


async def test_what_is_not_the_apps_and_what_stays_as_it_was_is_not_told(project: Path) -> None:
    (project / "app.py").write_text("# saved again\n")
    for folder in (".agentscope", "__pycache__", ".git", "typings", "venv", ".venv", "node_modules"):
        (project / folder).mkdir()
    (project / "venv" / "pyvenv.cfg").write_text("")
    async with watched(project) as watch:
        for folder in (".agentscope", "__pycache__", ".git", "typings", "venv", ".venv", "node_modules"):
            (project / folder / "module.py").write_text("")
        for name in ("app.log", "sessions.db", "notes.md", "app.py~", ".app.py.swp", "4913", "app.pyc"):
            (project / name).write_text("written by something else\n")
        (project / ".#app.py").symlink_to("someone@host.1234")
        (project / "app.py").write_text("# saved again\n")
        replace(project / "tools" / "weather.py", "# tools/weather.py\n")
        (project / "tools" / "__init__.py").touch()
        assert await watch.all_until_the_next() == set()


async def test_changes_that_come_together_are_one_call(project: Path) -> None:
    async with watched(project) as watch:
        names = [f"tools/tool_{number:03}.py" for number in range(200)]
        for name in names:
            (project / name).write_text("")
        calls = [await watch.next()]
        while names[-1] not in calls[-1]:
            calls.append(await watch.next())
        assert sorted(name for call in calls for name in call) == names
        # One, where nothing else keeps the machine from writing them.
        assert len(calls) < 5


async def test_what_changes_during_a_call_is_the_next_one_and_none_runs_beside_another(project: Path) -> None:
    async with watched(project) as watch:
        watch.may_return.clear()
        (project / "app.py").write_text("# first\n")
        assert await watch.next() == ["app.py"]
        for name in ("app.py", "tools/weather.py", "new.py"):
            (project / name).write_text("# second\n")
        watch.may_return.set()
        found: set[str] = set()
        while found != {"app.py", "tools/weather.py", "new.py"}:
            found |= set(await watch.next())
        assert watch.most_running == 1


async def test_a_folder_that_is_added_is_watched_too(project: Path) -> None:
    async with watched(project) as watch:
        (project / "new" / "deep").mkdir(parents=True)
        (project / "new" / "deep" / "module.py").write_text("")
        assert await watch.next() == ["new/deep/module.py"]
        (project / "new" / "deep" / "module.py").write_text("# changed\n")
        assert await watch.next() == ["new/deep/module.py"]


async def test_another_configuration_takes_the_place_of_the_projects(project: Path, tmp_path: Path) -> None:
    config = tmp_path / "elsewhere" / "staging.yaml"
    config.parent.mkdir()
    config.write_text("")
    async with watched(project, config) as watch:
        (project / "agentapp.yaml").write_text("# not used\n")
        config.write_text("app: b:B\n")
        assert await watch.all_until_the_next() == {"../elsewhere/staging.yaml"}


async def test_links_are_followed(project: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "package").mkdir(parents=True)
    (shared / "package" / "module.py").write_text("")
    (shared / "one-file").write_text("")
    (project / "package").symlink_to(shared / "package")
    (project / "linked.py").symlink_to(shared / "one-file")
    (project / "tools" / "again").symlink_to(project)
    (project / "loop.py").symlink_to(project / "loop.py")
    async with watched(project) as watch:
        (shared / "package" / "module.py").write_text("# changed\n")
        assert await watch.next() == ["package/module.py"]
        (shared / "one-file").write_text("# changed\n")
        assert await watch.next() == ["linked.py"]
        (shared / "another").write_text("# another\n")
        (project / "new-link").symlink_to(shared / "another")
        (project / "new-link").replace(project / "linked.py")
        assert await watch.next() == ["linked.py"]
        (shared / "another").write_text("# changed again\n")
        assert await watch.next() == ["linked.py"]


async def test_a_project_behind_a_link_is_watched(project: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project)
    async with watched(tmp_path / "link") as watch:
        (project / "app.py").write_text("# changed\n")
        assert await watch.next() == ["app.py"]


async def test_a_folder_that_vanishes_ends_it_with_a_clear_error(project: Path) -> None:
    watch = Watched(project)
    task = asyncio.create_task(watch.watch())
    await asyncio.wait_for(watch.ready.wait(), SECONDS)
    shutil.rmtree(project)
    with pytest.raises(ProjectError, match=r"a project's folder is gone: its files can't be watched any longer$"):
        await asyncio.wait_for(task, SECONDS)
    assert threads() == []


async def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="nowhere is gone"):
        await asyncio.wait_for(Watched(tmp_path / "nowhere").watch(), SECONDS)


async def test_what_a_call_raises_ends_it(project: Path) -> None:
    async def fail(changed: Collection[Path]) -> None:
        raise LookupError(*changed)

    ready = asyncio.Event()
    task = asyncio.create_task(watch_project(project, project / "agentapp.yaml", fail, on_ready=ready.set))
    await asyncio.wait_for(ready.wait(), SECONDS)
    (project / "app.py").write_text("# changed\n")
    with pytest.raises(LookupError, match=r"app\.py"):
        await asyncio.wait_for(task, SECONDS)
    assert threads() == []


@pytest.mark.parametrize("calls", [False, True], ids=["while it waits", "during a call"])
async def test_it_ends_soon_after_its_cancellation(calls: bool, project: Path) -> None:
    loop = asyncio.get_running_loop()
    watch = Watched(project)
    watch.may_return.clear()
    task = asyncio.create_task(watch.watch())
    await asyncio.wait_for(watch.ready.wait(), SECONDS)
    if calls:
        (project / "app.py").write_text("# changed\n")
        await watch.next()
    began = loop.time()
    task.cancel()
    await asyncio.wait([task], timeout=SECONDS)
    # It takes 50 ms; after two seconds the thread would have been left behind.
    assert loop.time() - began < 1.5
    assert task.cancelled()
    assert threads() == []


async def test_where_nothing_can_be_watched_it_looks_again_and_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def too_few(*paths: Path, **options: object) -> None:
        raise OSError(f'OS file watch limit reached. about ["{paths[0]}"] (Error {{ kind: MaxFilesWatch }})')

    monkeypatch.setattr(_watching, "watch", too_few)
    async with watched(project) as watch:
        (project / "app.py").write_text("# changed\n")
        assert await watch.next() == ["app.py"]
        (project / "new").mkdir()
        (project / "new" / "module.py").write_text("")
        assert await watch.next() == ["new/module.py"]
    assert caplog.messages == [
        "the project's files are looked at every 0.5 seconds, for they can't be watched: OS file watch limit reached. "
        "(on Linux, fs.inotify.max_user_watches and max_user_instances limit that)"
    ]


async def test_what_nothing_tells_of_is_found_all_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*paths: Path, **options: Any) -> Iterator[set[tuple[Change, str]]]:
        # As on some file systems: the folders are watched, and there is no event of them.
        return watch_files(project / "tools", **options)

    monkeypatch.setattr(_watching, "watch", silent)
    async with watched(project) as watch:
        (project / "app.py").write_text("# changed\n")
        assert await watch.next() == ["app.py"]


def test_a_folder_that_may_not_be_read_is_left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, who may read everything.
    def may_read(path: Path, mode: int) -> bool:
        return path.name != "tools"

    monkeypatch.setattr(os, "access", may_read)
    look = ProjectFiles(project, project / "agentapp.yaml").look()
    assert list(look.folders) == [project]


def test_more_folders_than_it_watches_are_told(project: Path) -> None:
    for number in range(4200):
        (project / "tools" / str(number)).mkdir()
    look = ProjectFiles(project, project / "agentapp.yaml").look()
    assert (look.whole, len(look.folders)) == (False, 4096)
    assert project / "tools" / "weather.py" in look.files


def test_variables_in_a_pipe_are_not_waited_for(project: Path) -> None:
    (project / ".env").unlink()
    os.mkfifo(project / ".env")
    assert project / ".env" not in ProjectFiles(project, project / "agentapp.yaml").look().files


def test_a_change_that_keeps_size_and_time_is_seen(project: Path) -> None:
    files = ProjectFiles(project, project / "agentapp.yaml")
    before, status = files.look(), (project / "app.py").stat()
    (project / "app.py").write_text("# app.yp\n")
    os.utime(project / "app.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files.look(before).changes_since(before) == (project / "app.py",)


def test_a_large_file_has_changed_when_it_was_written(project: Path) -> None:
    (project / "data.py").write_bytes(b"#" * MANY_BYTES)
    files = ProjectFiles(project, project / "agentapp.yaml")
    before = files.look()
    assert files.look(before).changes_since(before) == ()
    os.utime(project / "data.py", (0, 0))
    assert files.look(before).changes_since(before) == (project / "data.py",)


def test_what_editors_keep_beside_a_file_is_not_the_apps(project: Path) -> None:
    files = ProjectFiles(project, project / "agentapp.yaml")
    before = files.look()
    (project / ".hidden.py").write_text("X = 1\n")
    (project / ".#app.py").symlink_to("somebody@somewhere.1234")
    assert files.look(before).changes_since(before) == ()
    assert files.look(before).names == before.names
