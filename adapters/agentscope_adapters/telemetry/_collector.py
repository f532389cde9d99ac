"""A collector of traces, over HTTP. It is asked from a thread, and may block there."""

import ssl
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

_SILENT_SECONDS: Final = 1.0
"""How long a collector may be silent."""

_PASSING: Final = frozenset({429, 502, 503, 504})
"""The statuses after which OTLP has the same spans sent again."""

_LONGEST_ANSWER: Final = 64 * 1024


class Failure(NamedTuple):
    """Why spans were not taken; ``may_pass`` says that the same ones may be sent again."""

    reason: str
    may_pass: bool


class Collector:
    """The collector at a URL: that of its spans, or of all its signals, whose spans are at ``/v1/traces``.

    It is called by its host alone in what is logged: a URL may hold a password.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(endpoint)
        self._host, self._port = parts.hostname or "", parts.port
        self._is_secure = parts.scheme == "https"
        path = parts.path if parts.path.strip("/") else "/v1/traces"
        self._target = f"{path}?{parts.query}" if parts.query else path
        self._headers = {"Content-Type": "application/x-protobuf", **_login(parts.username, parts.password), **headers}
        self._connection: HTTPConnection | None = None

    def __str__(self) -> str:
        return f"the trace collector {self._host}" + (f":{self._port}" if self._port else "")

    def post(self, body: bytes) -> Failure | None:
        """Send spans; None when they were taken."""
        was_open = self._connection is not None
        try:
            try:
                status = self._exchange(body)
            except (HTTPException, OSError):
                self.close()
                if not was_open:
                    raise
                # One that was kept open may be closed by now, which says nothing of the collector.
                status = self._exchange(body)
        except (HTTPException, OSError, ValueError) as error:
            self.close()
            return Failure(type(error).__name__, may_pass=True)
        if 200 <= status < 300:
            return None
        return Failure(f"it answered {status}", status in _PASSING)

    def close(self) -> None:
        """Close the connection. It may be called from another thread, whose request then ends."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(SHUT_RDWR)
            connection.close()

    def _exchange(self, body: bytes) -> int:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
        connection.request("POST", self._target, body, self._headers)
        response = connection.getresponse()
        response.read(_LONGEST_ANSWER)
        if not response.isclosed():
            self.close()
        return response.status

    def _connect(self) -> HTTPConnection:
        if self._is_secure:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=_SILENT_SECONDS, context=context)
        return HTTPConnection(self._host, self._port, timeout=_SILENT_SECONDS)


def _login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    login = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Authorization": f"Basic {b64encode(login).decode()}"}
