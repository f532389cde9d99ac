"""Where a server is, by which name errors call it, and the words among its settings that no text may hold."""

import base64
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from agentscope.errors import UserError
from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.secrets import Secrets

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A shorter word says nothing, and would riddle every text with stars.
_SHORTEST_SECRET = 4


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    ``label`` is what errors call the place: scheme, host and port, or the name of the command. ``url`` has neither
    login nor query, because libraries log it: the login is among the ``headers``, ``query`` is sent beside it.
    """

    label: str
    secrets: Secrets = field(repr=False)
    url: str = field(default="", repr=False)
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    command: str = field(default="", repr=False)
    folder: Path = field(default=Path(), repr=False)


def address_of(name: str, settings: McpServerSettings, project: Path) -> Address:
    """The address in the settings of the server ``name``. Raises ``UserError`` for what no HTTP header can hold."""
    if settings.url is None:
        command = settings.command or ""
        return Address(
            Path(command).name,
            _secrets(value.get_secret_value() for value in settings.env.values()),
            command=_found(command, project),
            folder=project / (settings.cwd or ""),
        )
    parts = urlsplit(settings.url)
    login, _, host = parts.netloc.rpartition("@")
    headers = {"Authorization": f"Basic {_token(login)}"} if login else {}
    for key, value in _headers(name, settings):
        headers = {k: v for k, v in headers.items() if k.lower() != key.lower()} | {key: value}
    return Address(
        f"{parts.scheme}://{host}",
        _secrets((*_words_of_url(login, parts.query), *_words_of_headers(headers.values()))),
        url=urlunsplit(parts._replace(netloc=host, query="", fragment="")),
        query=parts.query,
        headers=headers,
    )


def _found(command: str, project: Path) -> str:
    if command in {"python", "python3"}:
        # The one that runs the app, whose environment has what a server beside it imports; PATH may name another.
        return sys.executable
    # As a shell does: a bare name is looked for in PATH.
    return str(project / command) if "/" in command else command


def _headers(name: str, settings: McpServerSettings) -> Iterator[tuple[str, str]]:
    for key, secret in settings.headers.items():
        value = secret.get_secret_value()
        if _HEADER_NAME.fullmatch(key) is None or not value.isascii() or not value.isprintable():
            raise UserError(
                f"mcp_servers.{name}.headers.{key}: holds a line break or a character that no HTTP header can hold; "
                "copy it again"
            )
        yield key, value


def _token(login: str) -> str:
    return base64.b64encode(unquote(login).encode()).decode()


def _words_of_url(login: str, query: str) -> Iterator[str]:
    if login:
        user, _, password = login.partition(":")
        # A user's name alone is a token; beside a password it is no secret.
        yield from (login, unquote(login), password or user, unquote(password or user), _token(login))
    yield query
    for _, value in parse_qsl(query):
        yield value


def _words_of_headers(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield value
        # What follows "Bearer".
        yield value.rpartition(" ")[2]


def _secrets(words: Iterable[str]) -> Secrets:
    return Secrets(word for word in words if len(word) >= _SHORTEST_SECRET)
