"""The fixtures that need an event loop. They are made for whoever runs it: pytest-asyncio, or another plugin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from agentscope._pytest_plugin import RECORD, recording_file, records, stop, watch

if TYPE_CHECKING:
    from agentscope.model import ChatModel
    from agentscope.runtime import Runtime
    from agentscope.session import SessionRepository
    from agentscope.testing import AgentClient, RecordedModels
    from agentscope.tool import Toolkit


def fixtures(fixture: Callable[..., Any]) -> ModuleType:
    """A plugin with the fixtures. ``fixture`` is the decorator that makes one of an asynchronous function."""
    plugin = ModuleType("agentscope-fixtures")
    for function in (agent_runtime, agent_client, recorded_models):
        setattr(plugin, function.__name__, fixture(function))
    return plugin


async def agent_runtime(
    request: pytest.FixtureRequest,
    agentscope_loop: None,
    agentscope_unstarted: Runtime,
    agent_models: Mapping[str, ChatModel],
    agent_tools: Toolkit,
    agent_sessions: SessionRepository,
    agent_overrides: Mapping[str, object],
) -> AsyncGenerator[Runtime]:
    """The project's runtime, started with nothing of the outside world."""
    from agentscope.errors import UnknownNameError, UserError
    from agentscope.testing._run import started

    if not isinstance(agent_models, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
        stop(f"the fixture agent_models gives a {type(agent_models).__name__}: let it give models by slot, in a dict")
    models = list(agent_models.values())
    # Whoever gives models of their own gives fakes: what these could not answer counts as well.
    watch(request.node, lambda: [text for model in models for text in getattr(model, "problems", None) or ()])
    async with AsyncExitStack() as stack:
        try:
            app = started(agentscope_unstarted, agent_models, agent_tools, agent_sessions, **agent_overrides)
            runtime = await stack.enter_async_context(app)
        except (UserError, UnknownNameError) as error:
            stop(str(error))
        yield runtime


async def agent_client(agent_runtime: Runtime) -> AsyncGenerator[AgentClient]:
    """A client of the project's runtime, which is served on a free port of the loopback."""
    from agentscope.testing import served

    async with served(agent_runtime) as client:
        yield client


async def recorded_models(
    request: pytest.FixtureRequest, agentscope_loop: None, agentscope_unstarted: Runtime
) -> AsyncGenerator[RecordedModels]:
    """The models by slot, which say what was recorded of the real ones for this test."""
    from agentscope.errors import UserError
    from agentscope.testing import recorded

    how = f"record it again: pytest '{request.node.nodeid}' {RECORD}"
    async with AsyncExitStack() as stack:
        try:
            recording = recorded(
                agentscope_unstarted, recording_file(request.node), record=records(request.node), how=how
            )
            models = await stack.enter_async_context(recording)
        except UserError as error:
            stop(str(error))
        watch(request.node, lambda: models.problems)
        yield models
