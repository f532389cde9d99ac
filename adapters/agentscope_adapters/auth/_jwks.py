"""Key sets: from a file that may change, or fetched from a URL and kept fresh."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar

from agentscope.errors import AuthenticatorUnavailableError, UserError
from agentscope_adapters.auth._key_set import KeySet, KeySource, PublicKey
from agentscope_adapters.auth._watched_file import LARGEST_FILE, WatchedFile
from agentscope_adapters.connection_failures import reason_of

_log = logging.getLogger("agentscope.auth")
_KEY: Final = "server.auth.jwt.jwks"
_PART: Final = 64 * 1024

Parse = Callable[[bytes], KeySet]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The defaults are those of production."""

    refresh: float = 300.0
    """How old keys become before they are fetched again."""
    retry: float = 30.0
    """How long after a fetch that failed."""
    unknown: float = 10.0
    """The least between two fetches for keys that nobody has heard of, which anyone can ask for."""
    stale: float = 24 * 3600.0
    """How old keys may be that can't be fetched again."""
    answer: float = 5.0
    """How long one fetch may take."""


def open_key_set(location: str, project: Path, parse: Parse) -> AbstractAsyncContextManager[KeySource]:
    """The keys at a URL, or in a file of the project. Entering raises ``UserError`` when there are none."""
    if "://" in location:
        return FetchedKeys.open(location, parse)
    return _open_file(project / location, parse)


@asynccontextmanager
async def _open_file(path: Path, parse: Parse) -> AsyncGenerator[KeySource]:
    async with WatchedFile[KeySet].open(path, parse, _KEY) as file:
        yield _KeysInFile(file)


class _KeysInFile:
    def __init__(self, file: WatchedFile[KeySet]) -> None:
        self._file = file

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        keys = await self._file.content()
        if keys is None:
            raise AuthenticatorUnavailableError("the file of keys can't be used")
        return keys.find(kid, algorithm)


class _NoKeysError(Exception):
    """What was fetched holds no keys. The text holds nothing of the URL."""


class FetchedKeys:
    """Keys from a URL, fetched again in the background. While that fails, those of before are used.

    ``clock`` counts seconds.
    """

    def __init__(
        self, url: str, parse: Parse, session: ClientSession, *, timing: Timing, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._parse = parse
        self._session = session
        self._timing = timing
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched = self._asked = clock()
        self._wrong: str | None = None
        self._fetching: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, parse: Parse, *, timing: Timing | None = None, clock: Callable[[], float] = time.monotonic
    ) -> AsyncGenerator["FetchedKeys"]:
        """The keys, fetched for the first time. Raises ``UserError`` when that fails."""
        timing = timing or Timing()
        async with ClientSession(timeout=ClientTimeout(total=timing.answer), cookie_jar=DummyCookieJar()) as session:
            keys = cls(url, parse, session, timing=timing, clock=clock)
            await keys._fetch()
            if keys._keys is None:
                raise UserError(f"{_KEY}: the key set can't be fetched: {keys._wrong}")
            refreshing = asyncio.create_task(keys._refresh())
            try:
                yield keys
            finally:
                tasks = [task for task in (refreshing, keys._fetching) if task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key of that name. One that is not there is looked for at the URL, unless that was just done."""
        key = self._known(kid, algorithm)
        if key is None and (self._fetching is not None or self._clock() - self._asked >= self._timing.unknown):
            await self._fetch_once()
            key = self._known(kid, algorithm)
        if key is None and self._wrong is not None:
            raise AuthenticatorUnavailableError("the key set can't be fetched")
        return key

    def _known(self, kid: str | None, algorithm: str) -> PublicKey | None:
        if self._keys is None or self._clock() - self._fetched > self._timing.stale:
            return None
        return self._keys.find(kid, algorithm)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._timing.refresh if self._wrong is None else self._timing.retry)
            await self._fetch_once()

    async def _fetch_once(self) -> None:
        """Fetch, or wait for the fetch that runs. Whoever waits may be cancelled; the fetch goes on."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        self._asked = self._clock()
        try:
            self._keys = await self._read(await self._download())
        except Exception as error:  # a server may answer anything: the keys of before stay, until they are too old
            reason = self._reason(error)
            if self._keys is not None and self._wrong is None:
                # Once, and not for every try.
                _log.error("%s: the key set can't be fetched, the keys of before are used: %s", _KEY, reason)
            self._wrong = reason
        else:
            if self._wrong is not None:
                _log.info("%s: the key set can be fetched again", _KEY)
            self._fetched, self._wrong = self._clock(), None
        finally:
            self._fetching = None

    async def _read(self, content: bytes) -> KeySet:
        try:
            # A megabyte of keys takes longer than the loop may stand still.
            return await asyncio.to_thread(self._parse, content)
        except ValueError as error:
            raise _NoKeysError(str(error)) from error

    async def _download(self) -> bytes:
        # A redirect could lead from HTTPS to plain HTTP.
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise _NoKeysError(f"the server answered {response.status}")
            content = bytearray()
            async for part in response.content.iter_chunked(_PART):
                content += part
                if len(content) > LARGEST_FILE:
                    raise _NoKeysError(f"it is larger than {LARGEST_FILE} bytes")
            return bytes(content)

    def _reason(self, error: Exception) -> str:
        return str(error) if isinstance(error, _NoKeysError) else reason_of(error, self._timing.answer)
