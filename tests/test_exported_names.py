"""The public names: a change here is a change of the interface."""

from importlib import import_module

import pytest

NAMES = {
    "agentscope": ["__version__"],
    "agentscope.message": (
        "AudioBlock Base64Source ContentBlock ContentBlockType ImageBlock MediaSource Msg Role TextBlock "
        "ThinkingBlock ToolResultBlock ToolUseBlock URLSource VideoBlock"
    ).split(),
    "agentscope.model": (
        "ChatChunk ChatModel ChatModelBase ChatResponse ChatUsage ModelAuthenticationError ModelBadRequestError "
        "ModelConnectionError ModelError ModelOverloadedError ModelRateLimitError ModelTimeoutError StopReason "
        "ToolChoice ToolSchema collect"
    ).split(),
    "agentscope.runtime": (
        "AgentApp Invocation ModelHandle ModelSlots ModelStream MsgStream Runtime SessionContext runtime"
    ).split(),
    "agentscope.server": ["RUNTIME", "ServerRunner", "create_app", "serve"],
    "agentscope.session": (
        "InMemorySessionRepository SessionContext SessionQueue SessionRepository SessionStore Stateful StoredSession "
        "StoredState TaskVersions Versions"
    ).split(),
    "agentscope.testing": ["InMemorySessionRepository", "ModelCall", "Reply", "ScriptedModel"],
}


@pytest.mark.parametrize("module", NAMES)
def test_a_package_exports_what_it_promises(module: str) -> None:
    assert sorted(import_module(module).__all__) == sorted(NAMES[module])


@pytest.mark.parametrize("module", NAMES)
def test_every_exported_name_is_there(module: str) -> None:
    package = import_module(module)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
