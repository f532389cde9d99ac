"""The port that ``agentscope run`` serves."""

import errno
import socket

from agentscope.errors import UserError


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that a port in use is known before anything is opened.

    Raises ``UserError`` when it can't be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "it is no host name"
        raise UserError(f"server.host {host[:100]!r} is no address of this machine: {reason}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise UserError(_why_not_bound(host, port, error)) from error
    return sock


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"port {port} needs privileges that this process does not have: choose one above 1023 with --port"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what uses it, or choose another with --port"
    return f"can't listen on {host} port {port}: {error.strerror}"
