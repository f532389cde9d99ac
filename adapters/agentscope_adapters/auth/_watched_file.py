"""A file that is read again when it has changed."""

import asyncio
import hashlib
import logging
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

from agentscope.errors import UserError

_log = logging.getLogger("agentscope.auth")
_T = TypeVar("_T")

LARGEST_FILE: Final = 1024 * 1024
"""Bytes."""

_EVERY: Final = 1.0
"""Seconds between two looks: a change counts after one of them at the latest."""

_SETTLED_NS: Final = 2_000_000_000
"""A file that was written this many nanoseconds ago may be written once more in the same tick of its clock."""


class _Mark(NamedTuple):
    """What tells one state of a file from another."""

    modified: int
    changed: int
    size: int
    inode: int
    device: int


class WatchedFile(Generic[_T]):
    """What a file holds now. It fails closed: what can't be read or understood any more holds nothing.

    ``parse`` makes the value of the bytes, in a thread; it raises ``ValueError`` with a text that holds no secret.
    ``key`` is where the configuration names the file. ``clock`` counts seconds.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], _T], key: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._parse = parse
        self._key = key
        self._clock = clock
        self._due = clock() + _EVERY
        self._mark: _Mark | None = None
        self._digest = b""
        self._content: _T | None = None
        self._wrong: str | None = None
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        parse: Callable[[bytes], _T],
        key: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> AsyncGenerator["WatchedFile[_T]"]:
        """The file, read for the first time. Raises ``UserError`` when it can't be used."""
        file = cls(path, parse, key, clock=clock)
        try:
            await asyncio.to_thread(file._read_if_changed)
        except Exception as error:
            raise UserError(f"{key}: {path} can't be used: {_reason(error)}") from error
        try:
            yield file
        finally:
            if file._looking is not None:
                await asyncio.wait([file._looking])

    async def content(self) -> _T | None:
        """What it holds, at most a second ago; None when that can't be used."""
        if self._clock() >= self._due:
            # Whoever comes meanwhile waits too: a token that was taken out must not be let in once more.
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            await asyncio.wait([self._looking])
        return self._content

    async def _look(self) -> None:
        try:
            again = await asyncio.to_thread(self._read_if_changed)
        except Exception as error:  # whatever it is, nothing may be let in by what was read before
            self._content, self._mark, self._digest = None, None, b""
            reason = _reason(error)
            if reason != self._wrong:
                # Once, and not for every request.
                self._wrong = reason
                _log.error("%s: %s can't be used, all that was in it is refused: %s", self._key, self._path, reason)
        else:
            if again:
                _log.info("%s: %s has changed, what is in it now counts", self._key, self._path)
            self._wrong = None
        finally:
            self._due = self._clock() + _EVERY
            self._looking = None

    def _read_if_changed(self) -> bool:
        """Read the file unless it is as it was, and say whether it holds something else now. In a thread."""
        status = self._path.stat()
        if self._mark is not None and self._mark == _mark_of(status):
            return False
        if not stat.S_ISREG(status.st_mode):
            # To open a pipe would wait for whoever writes to it.
            raise ValueError("it is not a regular file")
        with self._path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE} bytes")
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        self._mark = _mark_of(status) if settled else None
        digest = hashlib.sha256(content).digest()
        if digest == self._digest:
            return False
        self._content = self._parse(content)
        self._digest = digest
        return True


def _mark_of(status: os.stat_result) -> _Mark:
    return _Mark(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return str(error) if isinstance(error, ValueError) else type(error).__name__
