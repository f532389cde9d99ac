"""The tokens of ``server.auth.tokens`` and of ``server.auth.tokens_file``."""

import hashlib
import hmac
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path

from agentscope.auth import Claims, StaticToken, distinct_tokens
from agentscope.runtime.settings import AuthSettings
from agentscope_adapters.auth._watched_file import WatchedFile


class ListedTokens:
    """Tokens whose callers are known by name. ``file`` holds more of them, and may change."""

    def __init__(self, own: tuple[StaticToken, ...], file: WatchedFile[tuple[StaticToken, ...]] | None) -> None:
        self._own = own
        self._file = file

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: AuthSettings, project: Path) -> AsyncGenerator["ListedTokens"]:
        """Those of the settings. Raises ``UserError`` when the file can't be used."""
        own = distinct_tokens(StaticToken.parse(token.get_secret_value()) for token in settings.tokens)
        if settings.tokens_file is None:
            yield cls(own, None)
            return
        path, parse = project / settings.tokens_file, tokens_beside(own)
        async with WatchedFile[tuple[StaticToken, ...]].open(path, parse, "server.auth.tokens_file") as file:
            yield cls(own, file)

    def __bool__(self) -> bool:
        return bool(self._own) or self._file is not None

    async def find(self, token: str) -> Claims | None:
        """The claims of whoever has the token; None when it is not listed."""
        listed = () if self._file is None else await self._file.content() or ()
        digest = hashlib.sha256(token.encode()).digest()
        claims: Claims | None = None
        # All of them, always: the time it takes tells nothing about which one it is, or was nearly.
        for known in chain(self._own, listed):
            if hmac.compare_digest(known.digest, digest):
                claims = known.claims
        return claims


def tokens_beside(own: tuple[StaticToken, ...]) -> Callable[[bytes], tuple[StaticToken, ...]]:
    """``read_tokens`` of a file whose tokens may not be those of other callers among ``own``."""

    def read(content: bytes) -> tuple[StaticToken, ...]:
        found = read_tokens(content)
        distinct_tokens(chain(own, found))
        return found

    return read


def read_tokens(content: bytes) -> tuple[StaticToken, ...]:
    """The tokens in a file: one a line, as ``TOKEN`` or ``NAME TOKEN``; ``#`` begins a line that is a comment.

    Raises ``ValueError``, without anything of a token, when a line is none or there is no token at all.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    tokens: list[StaticToken] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            tokens.append(StaticToken.parse(line))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not tokens:
        raise ValueError("it holds no token")
    return distinct_tokens(tokens)
