"""Sessions: what an app loads and saves, the port to the store that keeps it, and the queue of each session."""

from agentscope.session._context import SessionContext
from agentscope.session._conversation import ConversationMovedError, ConversationPage, Place, read_conversation
from agentscope.session._following import follow_invocation
from agentscope.session._holding import PATIENCE, hold_session
from agentscope.session._ids import SESSION_ID_PATTERN, check_session_id
from agentscope.session._in_memory import InMemorySessionRepository
from agentscope.session._in_memory_invocations import InMemoryInvocationStore
from agentscope.session._invocations import (
    InvocationRecord,
    InvocationStore,
    LineBatch,
    LinePage,
    StopReason,
    StopRequest,
)
from agentscope.session._known import KnownSession, StoredState
from agentscope.session._leases import Leases
from agentscope.session._port import (
    NEVER_SAVED,
    Claim,
    ItemPage,
    Lease,
    ListChange,
    ModuleChange,
    ModuleHead,
    Pause,
    Revision,
    SessionReader,
    SessionRepository,
    SessionSummary,
    StoredSession,
)
from agentscope.session._pruning import Pruner
from agentscope.session._queue import SessionQueue, Turn, stopped_by
from agentscope.session._recording import Recorder, Recording
from agentscope.session._stops import StopRequests
from agentscope.session._store import Caller, SessionStore, Stateful
from agentscope.session._transfer import OnExisting, Tally, export_sessions, import_sessions, module_states, utc_text
from agentscope.session._transfer_lines import ExportFormatError
from agentscope.session._use import SessionUse, TaskUses

__all__ = [
    "NEVER_SAVED",
    "PATIENCE",
    "SESSION_ID_PATTERN",
    "Caller",
    "Claim",
    "ConversationMovedError",
    "ConversationPage",
    "ExportFormatError",
    "InMemoryInvocationStore",
    "InMemorySessionRepository",
    "InvocationRecord",
    "InvocationStore",
    "ItemPage",
    "KnownSession",
    "Lease",
    "Leases",
    "LineBatch",
    "LinePage",
    "ListChange",
    "ModuleChange",
    "ModuleHead",
    "OnExisting",
    "Pause",
    "Place",
    "Pruner",
    "Recorder",
    "Recording",
    "Revision",
    "SessionContext",
    "SessionQueue",
    "SessionReader",
    "SessionRepository",
    "SessionStore",
    "SessionSummary",
    "SessionUse",
    "Stateful",
    "StopReason",
    "StopRequest",
    "StopRequests",
    "StoredSession",
    "StoredState",
    "Tally",
    "TaskUses",
    "Turn",
    "check_session_id",
    "export_sessions",
    "follow_invocation",
    "hold_session",
    "import_sessions",
    "module_states",
    "read_conversation",
    "stopped_by",
    "utc_text",
]
