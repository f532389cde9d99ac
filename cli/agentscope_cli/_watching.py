"""Watching a project's files while it is developed, for ``agentscope run --reload``."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from watchfiles import Change, watch

from agentscope_cli._project_files import Look, ProjectFiles

_log = logging.getLogger("agentscope.cli")

_QUIET_MS: Final = 50
"""Changes belong together until so long nothing changes; a stop takes as long."""
_LONGEST_MS: Final = 500
"""After this, what has changed is told although more does."""
_START_MS: Final = 100
"""How soon the project is looked at again once its folders are watched."""
_POLL_SECONDS: Final = 0.5
"""How often it is looked at where nothing can be watched."""
_LEAST_OFTEN_SECONDS: Final = 2.0
"""How often although nothing was told: some file systems, and a queue that is full, tell nothing."""
_PAUSES_PER_LOOK: Final = 30
"""A look that takes long is rarer: it has this much time off before the next that nothing asked for."""
_END_SECONDS: Final = 2.0
"""How long the thread may take to end, on a disk that does not answer."""


async def watch_project(
    project: Path,
    config: Path,
    on_change: Callable[[Collection[Path]], Awaitable[None]],
    *,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Call ``on_change`` when files that an app is made of have changed, until it is cancelled.

    They are the project's Python files, ``config`` and ``.env``; the paths are absolute and sorted. Changes that come
    together are one call. While one runs there is no other: what changes meanwhile is the next. A file that is
    written as it was has not changed. ``on_ready`` is called once nothing is missed any more.

    Where nothing can be watched the files are looked at again and again, and the log says so. Raises ``ProjectError``
    when the project's folder isn't there any more, and what ``on_change`` raises.
    """
    watcher = _Watcher(ProjectFiles(project, config), asyncio.get_running_loop())
    watcher.start()
    try:
        changed = await watcher.changes()
        on_ready()
        while True:
            if changed:
                await on_change(changed)
            changed = await watcher.changes()
    finally:
        await watcher.stop()


class _Watcher:
    """A thread that looks at a project, once at its start and then whenever something happens in its folders."""

    def __init__(self, files: ProjectFiles, loop: asyncio.AbstractEventLoop) -> None:
        self._files = files
        self._loop = loop
        self._stopping = threading.Event()
        # Of the event loop's thread alone.
        self._seen: Look | None = None
        self._look: Look | None = None
        self._error: BaseException | None = None
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="agentscope-watch", daemon=True)
        # Of its own thread alone.
        self._names: Collection[str] = ()
        self._due = 0.0
        self._least_often = _LEAST_OFTEN_SECONDS

    def start(self) -> None:
        self._thread.start()

    async def changes(self) -> tuple[Path, ...]:
        """What has changed since the last call, or since the start: the first time also when nothing has.

        Raises what ended the thread.
        """
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            raise self._error
        assert self._seen is not None
        assert self._look is not None
        changed, self._seen = self._look.changes_since(self._seen), self._look
        return changed

    async def stop(self) -> None:
        """End the thread, which takes a moment."""
        self._stopping.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _END_SECONDS)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._watch()
        except BaseException as failure:
            error = failure
        # The loop is closed where a stop did not wait for this.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, error)

    def _watch(self) -> None:
        look = self._files.look(is_stopped=self._stopping.is_set)
        if not look.whole:
            _log.warning("the project has more than %d folders: changes further down are not seen", len(look.folders))
        self._tell(look)
        while not self._stopping.is_set():
            try:
                look = self._follow(look)
            except FileNotFoundError:
                # A folder went before it was watched.
                self._stopping.wait(_QUIET_MS / 1000)
                look = self._look_again(look)
            except (OSError, RuntimeError) as error:
                _log.warning(
                    "the project's files are looked at every %g seconds, for they can't be watched: %s "
                    "(on Linux, fs.inotify.max_user_watches and max_user_instances limit that)",
                    _POLL_SECONDS,
                    str(error).partition(" about [")[0],
                )
                self._poll(look)

    def _poll(self, look: Look) -> None:
        self._least_often = _POLL_SECONDS
        while not self._stopping.is_set():
            look = self._look_again(look)
            self._stopping.wait(self._due - time.monotonic())

    def _follow(self, look: Look) -> Look:
        """Watch the folders until they are other ones, and return the last look."""
        folders, self._due, self._names = look.folders, 0.0, look.names
        events = watch(
            *folders,
            watch_filter=self._concerns,
            debounce=_LONGEST_MS,
            step=_QUIET_MS,
            stop_event=self._stopping,
            rust_timeout=_START_MS,
            yield_on_timeout=True,
            recursive=False,
            # True would also hide that there are too few watches.
            ignore_permission_denied=False,
        )
        with closing(events):
            for changes in events:
                # The first time in any case: something may have changed before the folders were watched.
                if changes or self._is_due():
                    look = self._look_again(look)
                if look.folders != folders:
                    break
        return look

    def _concerns(self, change: Change, path: str) -> bool:
        # What is added or removed may be a folder or a link; what is only written to must be a file of the app.
        name = Path(path).name
        return change is not Change.modified or name.endswith(".py") or name in self._names or self._is_due()

    def _is_due(self) -> bool:
        return time.monotonic() >= self._due

    def _look_again(self, before: Look) -> Look:
        began = time.monotonic()
        look = self._files.look(before, self._stopping.is_set)
        ended = time.monotonic()
        self._due = ended + max(self._least_often, _PAUSES_PER_LOOK * (ended - began))
        if not self._stopping.is_set():
            self._names = look.names
            self._tell(look)
        return look

    def _tell(self, look: Look) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, look)

    def _take(self, look: Look) -> None:
        if self._seen is None:
            self._seen = look
        else:
            self._look = look
            self._news.set()

    def _end(self, error: BaseException | None) -> None:
        self._error = error
        self._ended.set()
        self._news.set()
