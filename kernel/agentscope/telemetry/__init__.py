"""Telemetry: the port through which the kernel tells what goes on, and nothing where nobody wants to know."""

from agentscope.telemetry._current import (
    Inside,
    begin,
    current_observer,
    current_request_id,
    log_context,
    observed,
    outgoing_headers,
)
from agentscope.telemetry._off import OFF
from agentscope.telemetry._port import Exposition, Levels, Observation, Observer, Operation, Telemetry
from agentscope.telemetry._together import together

__all__ = [
    "OFF",
    "Exposition",
    "Inside",
    "Levels",
    "Observation",
    "Observer",
    "Operation",
    "Telemetry",
    "begin",
    "current_observer",
    "current_request_id",
    "log_context",
    "observed",
    "outgoing_headers",
    "together",
]
