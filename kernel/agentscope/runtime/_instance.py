"""What a platform sees of a service, and what it may ask of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agentscope import __version__
from agentscope.platform import Action, Heartbeat, InstanceStatus
from agentscope.runtime._memory import resident_megabytes

if TYPE_CHECKING:
    from agentscope.runtime._service import Service

_log = logging.getLogger("agentscope.runtime")


class ServiceInstance:
    """A service as an ``Instance``.

    ``on_restart`` is called when the platform asks for a restart, None where the process is not the service's to end.
    ``on_reload`` is called when it asks for a reload, None meaning that this process reloads by itself.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.on_restart: Callable[[], None] | None = None
        self.on_reload: Callable[[], None] | None = None

    def heartbeat(self) -> Heartbeat:
        """See ``Instance.heartbeat``."""
        service = self._service
        activity = service.runtime.activity()
        metrics = {
            "active_sessions": activity.sessions,
            "active_invocations": service.running,
            "total_requests": activity.requests,
            "failed_requests": activity.failures,
            "memory_usage_mb": resident_megabytes(),
        }
        return Heartbeat(self._status, datetime.now(UTC), __version__, metrics, service.reload_error)

    def act(self, action: Action) -> None:
        """See ``Instance.act``."""
        if action == "reload":
            _log.info("the platform asks for a reload")
            (self.on_reload or self._service.reload_soon)()
        elif self.on_restart is None:
            _log.warning("the platform asks for a restart: this process is not the service's to end")
        else:
            _log.info("the platform asks for a restart")
            self.on_restart()

    @property
    def _status(self) -> InstanceStatus:
        state = self._service.runtime.state
        if state in {"new", "starting"}:
            return "starting"
        if state == "stopped":
            return "stopped"
        return "draining" if self._service.is_stopping or state == "draining" else "running"
