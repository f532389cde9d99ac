"""What this version accepts and does not act on yet. Whoever makes a key work deletes its line here."""

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from agentscope.runtime.settings._loaded import LoadedSettings
from agentscope.runtime.settings._tree import Settings

# Key -> the one value that does nothing, or None where every value but the default does nothing.
_UNUSED: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "platform.endpoint": None,
        "platform.token": None,
        "platform.heartbeat_interval": None,
    }
)


def unused_keys(loaded: LoadedSettings) -> list[str]:
    """The keys that are set to something else than their default and do nothing yet, for a warning at start."""
    default = Settings()
    unused: list[str] = []
    for key, only in _UNUSED.items():
        value = attrgetter(key)(loaded.settings)
        if value == only if only is not None else value != attrgetter(key)(default):
            unused.append(key)
    return unused
