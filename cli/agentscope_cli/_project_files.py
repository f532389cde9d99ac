"""The files that an app is made of, and what is in them: two looks at a project tell what has changed."""

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final

from agentscope.errors import ProjectError

_NOT_THE_APPS: Final = frozenset({"__pycache__", "node_modules", "site-packages", "typings"})
_OF_AN_ENVIRONMENT: Final = frozenset({"pyvenv.cfg", "conda-meta"})

_MOST_FOLDERS: Final = 4096
_LARGEST_CONTENT: Final = 1024 * 1024
_SETTLED_SECONDS: Final = 2.0
"""A file that changed more lately may change again and keep its times: the clocks of file systems are coarse."""

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _State:
    stamp: tuple[int, int, int, int]
    content: bytes
    settled: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What a project was like at one moment.

    ``folders`` are those in which a change may concern it, each with what tells it from another of that name;
    ``names`` those of its files, and of the files that links among them lead to. ``whole`` is False when there were
    more folders than are looked into.
    """

    files: dict[Path, _State] = field(default_factory=dict[Path, _State])
    folders: dict[Path, Identity] = field(default_factory=dict[Path, Identity])
    names: set[str] = field(default_factory=set[str])
    whole: bool = True

    def changes_since(self, before: "Look") -> tuple[Path, ...]:
        """The files that were added, changed or removed, sorted. One whose content is what it was has not changed."""
        return tuple(
            sorted(
                path
                for path in self.files.keys() | before.files.keys()
                if _content(self.files.get(path)) != _content(before.files.get(path))
            )
        )


class ProjectFiles:
    """A project's Python files, its configuration and its ``.env``.

    Not those in hidden folders, in environments, or in folders of tools. Folders may be links.
    """

    def __init__(self, project: Path, config: Path) -> None:
        self.project = project.absolute()
        self.named: Collection[Path] = (config.absolute(), self.project / ".env")

    def look(self, before: Look | None = None, is_stopped: Callable[[], bool] = lambda: False) -> Look:
        """Look at them; what is known from ``before`` is not read again. It ends early when it is stopped.

        Raises ``ProjectError`` when the project's folder isn't there.
        """
        if not self.project.is_dir():
            raise ProjectError(f"the project's folder {self.project} is gone: its files can't be watched any longer")
        known = {} if before is None else before.files
        folders = self._folders(is_stopped)
        found = Look(folders=folders, whole=len(folders) < _MOST_FOLDERS)
        for path in self._paths(list(folders)):
            if is_stopped():
                break
            found.names.add(path.name)
            # Not by `Path`, whose methods raise for loops of links, and in folders that are not ours to read.
            if os.path.islink(path):
                target = Path(os.path.realpath(path))
                found.names.add(target.name)
                _add_folder(target.parent, folders)
            state = _state_of(path, known.get(path))
            if state is not None:
                found.files[path] = state
        for path in self.named:
            _add_folder(path.parent, folders)
        return found

    def _folders(self, is_stopped: Callable[[], bool]) -> dict[Path, Identity]:
        """The folders of the app, those near the top first."""
        found: dict[Path, Identity] = {}
        met: set[Identity] = set()
        waiting = deque([self.project])
        while waiting and len(found) < _MOST_FOLDERS and not is_stopped():
            folder = waiting.popleft()
            identity = _identity_of(folder)
            # A link may lead back to where it came from.
            if identity is None or identity in met:
                continue
            met.add(identity)
            entries = list(_entries(folder))
            if folder != self.project and not _OF_AN_ENVIRONMENT.isdisjoint(entry.name for entry in entries):
                continue
            found[folder] = identity
            waiting += sorted(folder / entry.name for entry in entries if _is_folder_of_app(entry))
        return found

    def _paths(self, folders: Collection[Path]) -> Iterator[Path]:
        yield from self.named
        for folder in folders:
            for entry in _entries(folder):
                # Those that begin with a dot are the editors', and locks rather than files.
                if entry.name.endswith(".py") and not entry.name.startswith("."):
                    yield folder / entry.name


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        # It went while we looked, or is not ours to read.
        return


def _is_folder_of_app(entry: "os.DirEntry[str]") -> bool:
    if entry.name.startswith(".") or entry.name in _NOT_THE_APPS:
        return False
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity_of(folder: Path) -> Identity | None:
    """What tells a folder from another of that name; None for one that isn't there, or is not ours to read."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if os.access(folder, os.R_OK) else None


def _add_folder(folder: Path, folders: dict[Path, Identity]) -> None:
    identity = _identity_of(folder)
    if identity is not None:
        folders.setdefault(folder, identity)


def _state_of(path: Path, known: _State | None) -> _State | None:
    """What is in a file; None when there is none, or something else that reading could wait for."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if known is not None and known.settled and known.stamp == stamp:
            return known
        settled = time.time() - status.st_mtime > _SETTLED_SECONDS
        if status.st_size > _LARGEST_CONTENT:
            return _State(stamp, repr(stamp).encode(), settled)
        with path.open("rb") as stream:
            return _State(stamp, blake2b(stream.read(_LARGEST_CONTENT)).digest(), settled)
    except OSError:
        return None


def _content(state: _State | None) -> bytes | None:
    return None if state is None else state.content
