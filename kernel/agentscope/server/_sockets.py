"""Leaving a listening socket without losing who has connected to it."""

import asyncio
import ctypes
import logging
import socket
import struct
import sys

from agentscope.server._protocol import has_input

_log = logging.getLogger("agentscope.server")

_QUIET_SECONDS = 0.1
"""How long nobody may come before the socket counts as empty: connections that were under way take a round trip."""

_LONGEST_SECONDS = 2.0

_SO_ATTACH_FILTER = 26
# Classic BPF for the kernel: load the TCP flags, keep SYN and ACK of them, drop where SYN stands alone, pass the rest.
_DROP_SYN = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def refuse_connections(sock: socket.socket) -> None:
    """Let no new connection begin, in all processes that share the socket; those that have begun are still accepted.

    Closing a listening socket resets who waits in its queue. Once this is called, the queue can be emptied first. A
    client that comes now tries again a second later, and is refused then. Elsewhere than on Linux nothing is done.
    """
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(code))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:
        _log.debug("the kernel takes no filter: %s", error)


async def until_empty(sock: socket.socket) -> None:
    """Return when nobody waits to be accepted any more; the loop accepts meanwhile."""
    now = asyncio.get_running_loop().time
    latest = now() + _LONGEST_SECONDS
    quiet = now() + _QUIET_SECONDS
    while now() < min(quiet, latest):
        await asyncio.sleep(_QUIET_SECONDS / 10)
        if has_input(sock):
            quiet = now() + _QUIET_SECONDS


def address_of(sock: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
