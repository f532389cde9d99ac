"""The public names: a change here is a change of the interface."""

from importlib import import_module

import pytest

NAMES = {
    "agentscope": ["__version__"],
    "agentscope.agent": ["AgentBase", "AgentStream", "ReActAgent"],
    "agentscope.auth": (
        "Authenticator Claims SHORTEST_TOKEN StaticToken bearer_token distinct_tokens freeze_claims"
    ).split(),
    "agentscope.memory": ["InMemoryMemory", "MemoryBase"],
    "agentscope.message": (
        "AudioBlock Base64Source ContentBlock ContentBlockType FrozenDict FrozenList ImageBlock MediaSource Msg Role "
        "TextBlock ThinkingBlock ToolResultBlock ToolUseBlock URLSource VideoBlock new_id"
    ).split(),
    "agentscope.model": (
        "ChatChunk ChatModel ChatModelBase ChatResponse ChatUsage ModelAuthenticationError ModelBadRequestError "
        "ModelConnectionError ModelError ModelOverloadedError ModelRateLimitError ModelTimeoutError ResponseBuilder "
        "StopReason ToolChoice ToolSchema collect"
    ).split(),
    "agentscope.module": (
        "Closable LiveRuntime OwnedStream RunningInvocation SessionLocal SessionScope SessionScopes StateModule "
        "Tracked TrackedList child_modules current_invocation current_runtime is_tracked_list tracked_lists "
        "tracked_state"
    ).split(),
    "agentscope.platform": ["Action", "Heartbeat", "Instance", "InstanceStatus", "Platform", "PlatformState"],
    "agentscope.runtime": (
        "AgentApp Bell Invocation ModelHandle ModelSlots ModelStream MsgStream Runtime Service "
        "SessionContext Watch open_sessions outcome_of runtime"
    ).split(),
    "agentscope.server": ["SERVICE", "ServerRunner", "Worker", "create_app", "serve", "setup"],
    "agentscope.session": (
        "Caller Claim ConversationMovedError ConversationPage ExportFormatError InMemoryInvocationStore "
        "InMemorySessionRepository InvocationRecord InvocationStore ItemPage KnownSession Lease Leases "
        "LineBatch LinePage ListChange ModuleChange ModuleHead NEVER_SAVED OnExisting PATIENCE Pause "
        "Place Pruner Recorder Recording Revision SESSION_ID_PATTERN SessionContext SessionQueue "
        "SessionReader SessionRepository SessionStore SessionSummary SessionUse Stateful StopReason "
        "StopRequest StopRequests StoredSession StoredState Tally TaskUses Turn check_session_id "
        "export_sessions follow_invocation hold_session import_sessions module_states read_conversation "
        "stopped_by utc_text"
    ).split(),
    "agentscope.telemetry": (
        "Exposition Inside Levels OFF Observation Observer Operation Telemetry begin current_observer "
        "current_request_id log_context observed outgoing_headers together"
    ).split(),
    "agentscope.testing": (
        "AgentClient AgentClientError Answer AnswerStream FakeMcpServer FakeToolkit InMemorySessionRepository "
        "ModelCall NetworkGuard NetworkRefusedError NotRecordedError RecordedModels RecordedToolCall Reply "
        "ScriptedModel assert_asked assert_no_tool_called assert_said assert_tool_called no_network "
        "project_module project_runtime "
        "recorded run_app running served serving text_of tool_call"
    ).split(),
    "agentscope.tool": (
        "FunctionTool Handler Middleware NamesakeStrategy Postprocess RegisteredTool Tool ToolCall ToolGroup "
        "ToolOutput ToolResponse ToolServer ToolSource Toolkit argument_problems"
    ).split(),
}


@pytest.mark.parametrize("module", NAMES)
def test_a_package_exports_what_it_promises(module: str) -> None:
    assert sorted(import_module(module).__all__) == sorted(NAMES[module])


@pytest.mark.parametrize("module", NAMES)
def test_every_exported_name_is_there(module: str) -> None:
    package = import_module(module)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
