"""What this version accepts and does not act on yet. Whoever makes a key work deletes its line here."""

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from agentscope.runtime.settings._loaded import LoadedSettings
from agentscope.runtime.settings._nodes import Node, Unusable, descend
from agentscope.runtime.settings._problems import Report
from agentscope.runtime.settings._tree import Settings

# Key -> the one value that does nothing, or None where every value but the default does nothing.
_UNUSED: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "server.workers": None,
        "server.on_disconnect": None,
        "server.replay_ttl": None,
        "server.cors_origins": None,
        "tracing": None,
        "platform.endpoint": None,
        "platform.token": None,
        "platform.heartbeat_interval": None,
    }
)

# What protects the server is never ignored with a warning: a project that asks for it does not start without it.
_NOT_ENFORCED: Final = ("server.auth", "session.owner_claim")


def unused_keys(loaded: LoadedSettings) -> list[str]:
    """The keys that are set to something else than their default and do nothing yet, for a warning at start."""
    default = Settings()
    unused: list[str] = []
    for key, only in _UNUSED.items():
        value = attrgetter(key)(loaded.settings)
        if value == only if only is not None else value != attrgetter(key)(default):
            unused.append(key)
    return unused


def refuse_what_is_not_enforced(root: Node, report: Report) -> None:
    """Add a problem for each key that asks for a protection this version does not give."""
    for key in _NOT_ENFORCED:
        steps = key.split(".")
        nodes = list(descend(root, steps))
        if len(nodes) > len(steps) and nodes[-1].value and not isinstance(nodes[-1].value, Unusable):
            message = "not enforced by this version; remove it, or put an authenticating proxy in front"
            report.add(nodes[-1].key_origin, key, message)
