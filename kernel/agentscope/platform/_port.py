"""What an instance and its platform know of each other. The adapters speak to the platform."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

InstanceStatus = Literal["starting", "running", "draining", "stopped"]
PlatformState = Literal["up", "down"]

Action = Literal["restart", "reload"]
"""What a platform may ask for.

``restart``
    Let what runs finish, and end the process so that whoever supervises it starts it again.
``reload``
    Read the configuration and the app again, and go on with them; with the old ones when the new ones do not start.
"""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How an instance is at ``timestamp``, which is aware.

    ``metrics`` are numbers by name: ``active_sessions``, those with an invocation in the last five minutes,
    ``active_invocations``, ``total_requests``, ``failed_requests``, and ``memory_usage_mb``, resident now.
    ``reload_error`` is why the last reload left the old version serving, None when it did not, or there was none.
    """

    status: InstanceStatus
    timestamp: datetime
    version: str
    metrics: Mapping[str, int]
    reload_error: str | None = None


class Instance(Protocol):
    """What a platform sees of the instance."""

    def heartbeat(self) -> Heartbeat:
        """How it is now."""
        ...

    def act(self, action: Action) -> None:
        """Begin to do what the platform asks for. Returns at once, and raises nothing."""
        ...


@runtime_checkable
class Platform(Protocol):
    """A platform that is spoken to, on tasks of its own.

    It is opened by an adapter, ``open_platform(settings, instance)``, an async context manager: it says ``starting``
    when it is entered, and ``stopped`` when it is left, and neither waits long for a platform that is slow or gone.
    """

    @property
    def state(self) -> PlatformState:
        """Whether the platform answered the last time it was asked; ``up`` before the first time."""
        ...
