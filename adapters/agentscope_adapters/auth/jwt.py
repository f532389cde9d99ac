"""JWTs, checked with PyJWT: the signature, the times, the issuer and the audience."""

import base64
import json
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeGuard, cast
from urllib.parse import urlsplit

import jwt

from agentscope.auth import Claims, freeze_claims
from agentscope.errors import UnauthorizedError, UserError
from agentscope.runtime.settings import JwtSettings
from agentscope_adapters.auth._jwks import open_key_set
from agentscope_adapters.auth._key_set import KeySet, KeySource, NamedKey, OneKey, PublicKey

_log = logging.getLogger("agentscope.auth")

_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_NOT_VALID: Final = "the token is not valid"


@asynccontextmanager
async def open_verifier(settings: JwtSettings, project: Path) -> AsyncGenerator["JwtVerifier"]:
    """What checks JWTs by the settings. Raises ``UserError`` when the key or the key set can't be used."""
    if settings.audience is None:
        _log.warning(
            "server.auth.jwt.audience is not set: a token that names none is taken, whatever service it was made for, "
            "and one that names any is refused"
        )
    if settings.key is not None:
        yield JwtVerifier(settings, OneKey(_read_key(settings.key.get_secret_value(), settings.algorithms)))
        return
    location = settings.jwks or ""
    if _can_be_forged(location):
        _log.warning("server.auth.jwt.jwks is fetched over plain HTTP: who can change it on its way can sign tokens")
    async with open_key_set(location, project, partial(read_key_set, algorithms=settings.algorithms)) as keys:
        yield JwtVerifier(settings, keys)


class JwtVerifier:
    """Checks JWTs. Nothing that a token says of its own key is believed but the key's name.

    A signature is checked on the event loop: with RS256 that takes 60 microseconds, less than the way to a thread.
    """

    def __init__(self, settings: JwtSettings, keys: KeySource) -> None:
        self._settings = settings
        self._keys = keys
        self._decoder = jwt.PyJWT(options={"require": ["exp"], "enforce_minimum_key_length": True})

    async def verify(self, token: str) -> Claims:
        """The claims in the token.

        Raises ``UnauthorizedError`` when it is not valid, ``AuthenticatorUnavailableError`` when that can't be known.
        """
        header = _header_of(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        # What `crit` lists must be understood (RFC 7515, section 4.1.11), and nothing of it is.
        if algorithm not in self._settings.algorithms or "crit" in header or not isinstance(kid, str | None):
            raise _refused("its header")
        key = await self._keys.find(kid, algorithm)
        if key is None:
            raise _refused("its key is not known")
        return freeze_claims(self._decode(token, key, algorithm))

    def _decode(self, token: str, key: PublicKey, algorithm: str) -> dict[str, Any]:
        settings = self._settings
        try:
            return self._decoder.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway,
            )
        except jwt.ExpiredSignatureError as error:
            raise UnauthorizedError("the token has expired", invalid_token=True) from error
        except jwt.ImmatureSignatureError as error:
            raise UnauthorizedError("the token is not valid yet", invalid_token=True) from error
        except jwt.PyJWTError as error:
            raise _refused(type(error).__name__) from error


def read_key_set(content: bytes, algorithms: Sequence[str]) -> KeySet:
    """The keys for the algorithms in a JWK set (RFC 7517). Those that can't be used are passed over.

    Raises ``ValueError`` when it is none, or holds no key for them.
    """
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    entries = document.get("keys") if _is_mapping(document) else None
    if not _is_list(entries):
        raise ValueError('it is no JWK set: it has no list "keys"')
    keys = list(_usable_keys(entries, algorithms))
    if not keys:
        raise ValueError(f"it holds no public key for {', '.join(algorithms)}")
    return KeySet(keys)


def _usable_keys(entries: Sequence[object], algorithms: Sequence[str]) -> Iterator[NamedKey]:
    for entry in entries:
        for algorithm in algorithms:
            if _is_mapping(entry) and _is_meant_for(entry, algorithm):
                key = _key_of(entry, algorithm)
                if key is not None:
                    yield NamedKey(cast("str | None", entry.get("kid")), algorithm, key)


def _is_meant_for(entry: Mapping[str, object], algorithm: str) -> bool:
    """Whether a JWK says that it is a public key to check signatures of the algorithm."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("kty") == _KEY_TYPES[algorithm[:2]]
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and _is_list(operations)
        and "verify" in operations
        and isinstance(entry.get("kid"), str | None)
        # A private key in a public place is anybody's.
        and "d" not in entry
    )


def _key_of(entry: Mapping[str, object], algorithm: str) -> PublicKey | None:
    try:
        handler = jwt.get_algorithm_by_name(algorithm)
        key = handler.prepare_key(handler.from_jwk(dict(entry)))
        weakness = handler.check_key_length(key)
    except Exception:  # whatever the libraries make of it, one strange key does not spoil the others
        return None
    return key if weakness is None else None


def _read_key(text: str, algorithms: Sequence[str]) -> PublicKey:
    """The key in the settings, which fits all of the algorithms. Raises ``UserError`` when it does not."""
    key: PublicKey = text.encode()
    for algorithm in algorithms:
        try:
            handler = jwt.get_algorithm_by_name(algorithm)
            key = handler.prepare_key(key)
            weakness = handler.check_key_length(key)
        except Exception as error:  # the libraries raise what they like for a text that is no key
            raise UserError(f"server.auth.jwt.key: is no key for {algorithm}") from error
        if weakness is not None:
            raise UserError(f"server.auth.jwt.key: {weakness}")
    return key


def _header_of(token: str) -> Mapping[str, Any]:
    # PyJWT's own function reads the whole token, at eight times the cost, and reads it once more to check it.
    segment = token.partition(".")[0]
    try:
        header: object = json.loads(base64.urlsafe_b64decode(f"{segment}=="))
    except (ValueError, RecursionError):
        header = None
    if not _is_mapping(header):
        raise _refused("it is no JWT")
    return header


def _refused(reason: str) -> UnauthorizedError:
    # Who tries tokens is not told how near they come; who runs the server may want to know.
    _log.debug("a JWT is refused: %s", reason)
    return UnauthorizedError(_NOT_VALID, invalid_token=True)


def _is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _can_be_forged(location: str) -> bool:
    parts = urlsplit(location)
    if parts.scheme != "http":
        return False
    try:
        return not ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname != "localhost"
