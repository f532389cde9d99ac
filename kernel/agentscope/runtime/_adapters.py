"""Finding an adapter by the name that a project's configuration gives it."""

import importlib
import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from agentscope.errors import UserError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import InMemorySessionRepository, SessionRepository

AUTHENTICATORS = "agentscope.authenticators"
MODELS = "agentscope.models"
PLATFORMS = "agentscope.platform"
SESSION_BACKENDS = "agentscope.session_backends"
TELEMETRY = "agentscope.telemetry"
TOOLS = "agentscope.tools"

# Reading the metadata of the installed packages takes 50 ms: it is done only for a name that isn't here.
_OURS = {
    AUTHENTICATORS: {"bearer": "agentscope_adapters.auth.bearer:open_authenticator"},
    MODELS: {
        "openai": "agentscope_adapters.models.openai:OpenAIChatModel",
        "dashscope": "agentscope_adapters.models.openai:OpenAIChatModel",
        "gemini": "agentscope_adapters.models.openai:OpenAIChatModel",
        "ollama": "agentscope_adapters.models.openai:OpenAIChatModel",
        "anthropic": "agentscope_adapters.models.anthropic:AnthropicChatModel",
        "offline": "agentscope_adapters.models.offline:OfflineChatModel",
    },
    PLATFORMS: {"http": "agentscope_adapters.platform.http:open_platform"},
    TELEMETRY: {
        "opentelemetry": "agentscope_adapters.telemetry.opentelemetry:open_tracing",
        "prometheus": "agentscope_adapters.telemetry.prometheus:open_metrics",
    },
    TOOLS: {"mcp": "agentscope_adapters.mcp.server:McpServer"},
    SESSION_BACKENDS: {
        "sql": "agentscope_adapters.storage.repository:open_repository",
        "memory": "agentscope.runtime._adapters:open_in_memory",
    },
}


def find_adapter(group: str, name: str, key: str, *arguments: object) -> Callable[..., Any]:
    """The adapter called ``name`` in an entry-point group, imported.

    ``key`` is where the configuration names it, for the error. Raises ``UserError`` when there is no such adapter, it
    can't be imported, or it can't be called with ``arguments``.
    """
    adapter = _import(group, name, key)
    try:
        inspect.signature(adapter).bind(*arguments)
    except TypeError as error:
        takes = ", ".join(type(argument).__name__ for argument in arguments)
        raise UserError(f"{key}: the adapter {name!r} can't be called with ({takes}): {error}") from error
    return adapter


@asynccontextmanager
async def open_in_memory(settings: SessionSettings, project: Path) -> AsyncGenerator[SessionRepository, None]:
    """The ``memory`` backend: sessions that last as long as the process."""
    yield InMemorySessionRepository()


def _import(group: str, name: str, key: str) -> Callable[..., Any]:
    ours = _OURS[group].get(name)
    try:
        if ours is not None:
            module, _, attribute = ours.partition(":")
            return cast("Callable[..., Any]", getattr(importlib.import_module(module), attribute))
        for point in entry_points(group=group, name=name):
            return cast("Callable[..., Any]", point.load())
    except ImportError as error:
        missing = f"; run: pip install {error.name}" if isinstance(error, ModuleNotFoundError) else ""
        raise UserError(f"{key}: the adapter {name!r} can't be imported: {error}{missing}") from error
    known = {*_OURS[group], *entry_points(group=group).names}
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(known))}"
    raise UserError(f"{key}: no adapter named {name!r}; {hint} (a package adds one by the entry point {group})")
