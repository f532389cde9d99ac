"""Settings that belong to a process: one that runs goes on with those it has, whatever a new version says."""

from typing import Final

from agentscope.runtime.settings import Settings

_OF_THE_SERVER: Final = ("host", "port", "workers", "max_connections", "cors_origins", "metrics", "shutdown_timeout")


class ProcessSettings:
    """Keeps what the process was started with, and knows what of it a new version would have otherwise."""

    def __init__(self, settings: Settings) -> None:
        self._platform = settings.platform
        self._server = {key: getattr(settings.server, key) for key in _OF_THE_SERVER}
        self.ignored: list[str] = []
        """Keys that the last ``keep`` did not follow."""

    def keep(self, settings: Settings) -> Settings:
        """The settings that a new version found, with the process's own."""
        found = settings.server
        self.ignored = [f"server.{key}" for key, value in self._server.items() if getattr(found, key) != value]
        if settings.platform != self._platform:
            self.ignored.append("platform")
        return settings.model_copy(
            update={"server": found.model_copy(update=self._server), "platform": self._platform}
        )
