"""Why an HTTP request failed, in words that hold neither its URL nor its headers, which the library's may quote."""

import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import cast

import httpx2

NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
"""The errors of a request for which there was no connection."""


def reason_of(error: Exception) -> str:
    """Why a request failed."""
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "it refused the connection (is it running?)"
        if isinstance(cause, socket.gaierror):
            return "its host name is not known"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate was not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as we do"
    if isinstance(error, httpx2.ReadTimeout):
        return "it fell silent"
    if isinstance(error, httpx2.RemoteProtocolError):
        known = str(error).startswith(("Server disconnected", "peer closed"))
        return "it closed the connection" if known else "it answered with something that is not HTTP"
    if isinstance(error, httpx2.ReadError | httpx2.WriteError):
        return "it closed the connection"
    if isinstance(error, NOT_CONNECTED):
        return "it can't be reached"
    return f"the request failed ({type(error).__name__})"


def status_of(number: int) -> str:
    """An HTTP status with its meaning, not in the server's words, which may be anything."""
    try:
        return f"{number} {HTTPStatus(number).phrase}"
    except ValueError:
        return str(number)


def _causes(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        if isinstance(following, BaseExceptionGroup):
            # One for each of the host's addresses.
            following = cast("BaseExceptionGroup[BaseException]", following).exceptions[0]
        yield following
        following = following.__cause__ or following.__context__
