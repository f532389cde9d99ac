"""What an app is written against, ``runtime``, ``AgentApp`` and ``SessionContext``, and the kernel: ``Runtime``."""

from agentscope.runtime._app import AgentApp
from agentscope.runtime._facade import runtime
from agentscope.runtime._invocation import Invocation
from agentscope.runtime._models import ModelHandle, ModelSlots, ModelStream
from agentscope.runtime._outcomes import outcome_of
from agentscope.runtime._pump import Bell
from agentscope.runtime._runtime import Runtime
from agentscope.runtime._service import Service
from agentscope.runtime._sessions import open_sessions
from agentscope.runtime._stream import MsgStream
from agentscope.runtime._watch import Watch
from agentscope.session import SessionContext

__all__ = [
    "AgentApp",
    "Bell",
    "Invocation",
    "ModelHandle",
    "ModelSlots",
    "ModelStream",
    "MsgStream",
    "Runtime",
    "Service",
    "SessionContext",
    "Watch",
    "open_sessions",
    "outcome_of",
    "runtime",
]
