"""The effective settings as a flat list for people: dotted key, value, origin. No secret leaves this module."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, TypeGuard

from pydantic import BaseModel, SecretStr

from agentscope.runtime.settings._loaded import LoadedSettings

MASK: Final = "***"

_DATABASE: Final = ("session", "url")
_OPTIONS: Final = ("server", "auth", "options")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORD: Final = re.compile(
    r".*(?:auth|authorization|cookie|credential|header|key|passphrase|passwd|password|pwd|secret|token)(?P<plural>s?)",
    re.IGNORECASE,
)
_QUERY_VALUE: Final = re.compile(r"(?<=[?&;])([^=&;#]*)=([^&;#]*)")


@dataclass(frozen=True, slots=True)
class Described:
    """One effective value, for printing. ``value`` is what JSON can hold, with secrets replaced by ``***``."""

    key: str
    value: object
    origin: str


def describe(loaded: LoadedSettings) -> tuple[Described, ...]:
    """Every effective value with its origin, in the order of the settings, secrets masked."""
    found = _walk(loaded.settings, ())
    return tuple(Described(".".join(path), value, loaded.origin_at(path)) for path, value in found)


def _walk(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, BaseModel):
        # One by one, for a dump would turn secrets and models into something else.
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), (*path, name))
    elif path == _DATABASE and isinstance(value, SecretStr):
        # Which database it is, is what one wants to see; the driver's own query parameters may be secrets as well.
        yield path, _masked_url(value.get_secret_value())
    elif _is_mapping(value) and value:
        for key, item in value.items():
            if path == _OPTIONS or _is_secret(str(key), item):
                yield (*path, str(key)), MASK
            else:
                yield from _walk(item, (*path, str(key)))
    else:
        yield path, _masked(value)


def _masked(value: object) -> object:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, BaseModel):
        return {name: _masked(getattr(value, name)) for name in type(value).model_fields}
    if _is_mapping(value):
        return {str(key): MASK if _is_secret(str(key), item) else _masked(item) for key, item in value.items()}
    if _is_sequence(value):
        return [_masked(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return _masked_url(value) if isinstance(value, str) and "://" in value else value


def _masked_url(url: str) -> str:
    """``url`` without its password. Rather too much is masked than too little: passwords are often not quoted well."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return MASK
    userinfo, at, host = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if at:
        rest = f"{user}:{MASK}@{host}" if colon else f"{MASK}@{host}"
    return f"{scheme}://{_QUERY_VALUE.sub(_masked_parameter, rest)}"


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found.group(1)}={MASK if _is_secret(found.group(1), found.group(2)) else found.group(2)}"


def _is_secret(key: str, value: object) -> bool:
    """Whether ``key`` says that ``value`` is a secret: ``api_key``, ``X-Auth-Token``, ``tokens``.

    A number below a plural is a count (``max_tokens: 500``), and a section is looked into by its own keys.
    """
    if isinstance(value, BaseModel):
        return False
    words = [_SECRET_WORD.fullmatch(word) for word in _WORD.findall(key)]
    return any(word and not (word.group("plural") and isinstance(value, int | float)) for word in words)


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
