"""The public keys that JWTs may be signed with, by the name that a token gives."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

PublicKey = Any
"""What the library for JWTs takes: a key object, or the bytes of a secret."""


class NamedKey(NamedTuple):
    """One key for one algorithm. ``kid`` None: it has no name."""

    kid: str | None
    algorithm: str
    key: PublicKey


class KeySource(Protocol):
    """Where the keys come from."""

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key of that name for the algorithm, None when there is none. ``kid`` None: the token names no key.

        Raises ``AuthenticatorUnavailableError`` when that can't be known now.
        """
        ...


class OneKey:
    """The key in the settings, whatever name a token gives it."""

    def __init__(self, key: PublicKey) -> None:
        self._key = key

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key."""
        return self._key


class KeySet:
    """Keys by name and algorithm."""

    def __init__(self, keys: Iterable[NamedKey]) -> None:
        by_name: dict[tuple[str, str], PublicKey] = {}
        by_algorithm: dict[str, list[PublicKey]] = {}
        for kid, algorithm, key in keys:
            if kid is not None:
                by_name.setdefault((kid, algorithm), key)
            by_algorithm.setdefault(algorithm, []).append(key)
        self._by_name: Mapping[tuple[str, str], PublicKey] = by_name
        # A token without a name is no riddle: with two keys that fit, neither is meant.
        self._only = {algorithm: found[0] for algorithm, found in by_algorithm.items() if len(found) == 1}

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key of that name; without a name, the only one for the algorithm."""
        return self._only.get(algorithm) if kid is None else self._by_name.get((kid, algorithm))
