"""What is said to a platform, and what it answers, as JSON."""

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final, cast

from agentscope.platform import Heartbeat

_LONGEST_ERROR: Final = 2_000
"""Characters. What went wrong is in the log; this is to say what kind it is."""


class PlatformFailedError(Exception):
    """The platform did not do what it should. The text says what, and holds no secret and nothing that it sent.

    ``retry_after`` are the seconds after which it wants to be asked again, None when it did not say.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def write_heartbeat(heartbeat: Heartbeat) -> bytes:
    """The body of a heartbeat."""
    said: dict[str, object] = {
        "status": heartbeat.status,
        "timestamp": heartbeat.timestamp.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": heartbeat.version,
        "metrics": dict(heartbeat.metrics),
    }
    if heartbeat.reload_error is not None:
        said["reload_error"] = _short(heartbeat.reload_error)
    return json.dumps(said).encode()


def read_action(body: bytes) -> str | None:
    """What a configuration check asks for, None when it is nothing. Raises ``PlatformFailedError`` for nonsense."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise PlatformFailedError("its configuration is not JSON") from None
    if not isinstance(answer, dict):
        raise PlatformFailedError("its configuration is not a JSON object")
    fields = cast("Mapping[str, object]", answer)
    updated, action = fields.get("updated"), fields.get("action")
    if not isinstance(updated, bool):
        raise PlatformFailedError('its configuration does not say "updated": true or false')
    if not updated:
        return None
    if not isinstance(action, str):
        raise PlatformFailedError('its configuration is updated, but has no text as "action"')
    return None if action == "none" else action


def _short(text: str) -> str:
    # A path may hold bytes that are no text, and strict readers of JSON refuse what Python makes of them.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"
