"""Why a request of aiohttp's client failed, in words that hold no URL, no address and no header."""

import os

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientHttpProxyError,
    ClientOSError,
    ClientPayloadError,
    ClientProxyConnectionError,
    ClientResponseError,
    ServerDisconnectedError,
)


def reason_of(error: Exception, seconds: float) -> str:
    """What went wrong. The client's own texts name the URL, which may hold a password, and addresses.

    ``seconds`` is how long the request had.
    """
    match error:
        case TimeoutError():
            return f"no answer within {seconds:g} seconds"
        case ClientHttpProxyError():
            return f"the proxy that the environment names answered {error.status}"
        case ClientProxyConnectionError():
            return "the proxy that the environment names can't be reached"
        case ClientConnectorDNSError():
            return "the name of its host is not known"
        case ClientConnectorCertificateError():
            return "its certificate is not trusted; certificates are the system's, or those of SSL_CERT_FILE"
        case ClientConnectorSSLError():
            return "it does not speak TLS"
        case ClientConnectorError():
            number = error.os_error.errno
            return os.strerror(number).lower() if number else "the server can't be reached"
        case ServerDisconnectedError() | ClientPayloadError() | ClientOSError():
            return "the connection was closed before the answer was complete"
        case ClientResponseError():
            return "its answer is not HTTP"
        case _:
            return type(error).__name__
