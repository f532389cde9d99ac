"""A guard on the network: what runs under it reaches this machine alone."""

import errno
import gc
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from ipaddress import ip_address
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from agentscope.errors import AgentScopeError
from agentscope.runtime import Runtime

_CONNECTING: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_RESOLVING: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
_NAMING: Final = "socket.getnameinfo"


class NetworkRefusedError(AgentScopeError, ConnectionError):
    """A test would have reached the network. ``address`` is where to, as ``host:port`` or ``host``.

    It is a ``ConnectionError`` as well: to whoever wanted to connect, the network is down.
    """

    def __init__(self, address: str, message: str) -> None:
        super().__init__(errno.ENETUNREACH, message)
        self.address = address

    def __str__(self) -> str:
        return self.strerror or ""


class NetworkGuard:
    """Refuses connections to other machines, in every thread, while it is ``active``.

    ``refused`` holds the errors that were raised, also those that somebody caught.
    """

    def __init__(self) -> None:
        self.refused: list[NetworkRefusedError] = []

    @contextmanager
    def active(self) -> Generator["NetworkGuard"]:
        """Refuse them until the block ends."""
        guards = _guards()
        guards.append(self)
        try:
            yield self
        finally:
            # By identity, and not the last one: blocks may end in any order.
            guards[:] = [guard for guard in guards if guard is not self]

    def refuse(self, host: str, port: object) -> None:
        """Raise ``NetworkRefusedError`` for an address of another machine."""
        if is_local(host) and not _is_proxy(port):
            return
        address = host if port in (None, 0, "") else f"{host}:{port}"
        error = NetworkRefusedError(address, _explained(host, address))
        self.refused.append(error)
        raise error


@contextmanager
def no_network() -> Generator[NetworkGuard]:
    """Refuse every connection to another machine until the block ends, in every thread; loopback stays open.

    Whoever connects gets a ``NetworkRefusedError``. When somebody caught it, and the block ends without an error,
    ``AssertionError`` says what was wanted.
    """
    guard = NetworkGuard()
    with guard.active():
        yield guard
    if guard.refused:
        raise AssertionError(str(guard.refused[0]))


def is_local(host: str) -> bool:
    """Whether a host is this machine."""
    name = host.partition("%")[0].rstrip(".").lower()
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return name == socket.gethostname().lower()
    address = getattr(address, "ipv4_mapped", None) or address
    # To connect to 0.0.0.0 is to connect to this machine.
    return address.is_loopback or address.is_unspecified or _is_own(str(address), address.version)


def _is_own(address: str, version: int) -> bool:
    """Whether it is an address of this machine: nobody can be bound to another's."""
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            _probing().is_on = True
            # Of a datagram socket this sends nothing; who would send to itself does so from there.
            probe.connect((address, 9))
            return str(probe.getsockname()[0]) == address
        except OSError:
            return False
        finally:
            _probing().is_on = False


class _Probing(threading.local):
    """Whether this thread only wants to know what an address is."""

    is_on = False


@cache
def _probing() -> _Probing:
    return _Probing()


def _is_proxy(port: object) -> bool:
    """Whether that is what the environment names as the way out."""
    for name, url in getproxies().items():
        with suppress(ValueError):
            proxy = urlsplit(url if "://" in url else f"http://{url}")
            number = proxy.port or (443 if proxy.scheme == "https" else 80)
            if name != "no" and proxy.hostname and number == port and is_local(proxy.hostname):
                return True
    return False


@cache
def _guards() -> list[NetworkGuard]:
    """The active guards of the process. What Python calls before it connects can't be taken away again: once."""
    guards: list[NetworkGuard] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if guards and event.startswith("socket.") and not _probing().is_on:
            _check(guards[-1].refuse, event, arguments)

    sys.addaudithook(watch)
    return guards


def _check(refuse: Callable[[str, object], None], event: str, arguments: tuple[Any, ...]) -> None:
    address: tuple[object, ...] = ()
    if event in _RESOLVING:
        address = arguments
    elif event == _NAMING:
        address = cast("tuple[object, ...]", arguments[0])
    elif event in _CONNECTING and isinstance(arguments[1], tuple):
        # Of the Internet's families alone: a path, as a Unix socket has, is on this machine.
        address = cast("tuple[object, ...]", arguments[1])
    host, port = (*address, None, None)[:2]
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if isinstance(host, str):
        refuse(host, port)


def _explained(host: str, address: str) -> str:
    slots, certain = _slots_at(host)
    named = " or ".join(f"{slot!r} ({provider})" for slot, provider in slots.items())
    for_slots = (
        f'give it a fake, as with `override(models={{"{next(iter(slots), "main")}": ScriptedModel(…)}})` or '
        "`agent_models`, or use `recorded_models`"
    )
    if certain:
        return f"the model slot {named} would have called its vendor at {address}: {for_slots}"
    told = (
        f"the test would have reached {address}: a guarded test reaches this machine alone; put a fake in its place, "
        "or mark the test with `agentscope(network=True)`"
    )
    return f"{told}; was it the model slot {named}, {for_slots}" if slots else told


def _slots_at(host: str) -> tuple[dict[str, str], bool]:
    """The slots whose real model may be at that host, with their providers, and whether one of them is."""
    # Who connects may be in a thread, and its runtime only starting: nobody has a list of all there are.
    runtimes = [found for found in gc.get_objects() if type(found) is Runtime and found.state != "stopped"]
    real = {
        slot: model
        for runtime in runtimes
        for slot, model in runtime.settings.models.items()
        if model.provider != "offline" and not _is_overridden(runtime, slot)
    }
    there = {
        slot: model.provider
        for slot, model in real.items()
        if (urlsplit(model.base_url).hostname == host if model.base_url else model.provider in host)
    }
    return there or {slot: model.provider for slot, model in real.items()}, bool(there)


def _is_overridden(runtime: Runtime, slot: str) -> bool:
    # The library's type hints leave what its providers give open.
    return bool(runtime.container.models.providers[slot].overridden)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
