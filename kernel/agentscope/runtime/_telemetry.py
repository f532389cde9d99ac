"""The telemetry that the settings ask for."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from agentscope.runtime._adapters import TELEMETRY, find_adapter
from agentscope.runtime.settings import Settings
from agentscope.telemetry import Exposition, Levels, Telemetry, together

Enter = Callable[[str, object, Callable[[], AbstractAsyncContextManager[Any]]], Awaitable[Any]]


class Opened(NamedTuple):
    """What was opened. ``exposition`` is None without metrics."""

    telemetry: Telemetry
    exposition: Exposition | None


class TelemetryAdapters:
    """The adapters that a runtime needs, imported: of what the settings don't ask for nothing is.

    ``levels`` gives what there is in the runtime at a moment. Raises ``UserError`` for an adapter that is not there.
    """

    def __init__(self, settings: Settings, project: Path, levels: Callable[[], Levels]) -> None:
        self._arguments = (settings, project, levels)
        self._key = (settings.tracing, settings.server.metrics, settings.platform.instance_id)
        wanted: dict[str, str] = {}
        if settings.tracing.endpoint is not None:
            wanted["opentelemetry"] = "tracing.endpoint"
        if settings.server.metrics:
            wanted["prometheus"] = "server.metrics"
        self._adapters: dict[str, Callable[..., Any]] = {
            name: find_adapter(TELEMETRY, name, key, *self._arguments) for name, key in wanted.items()
        }

    async def open(self, enter: Enter) -> Opened:
        """Open them, each by ``enter``, which is given its name, what it is opened by, and how."""
        parts: list[Telemetry] = []
        for name, adapter in self._adapters.items():
            parts.append(await enter(name, self._key, partial(adapter, *self._arguments)))
        exposition = next((part for part in parts if isinstance(part, Exposition)), None)
        return Opened(together(parts), exposition)
