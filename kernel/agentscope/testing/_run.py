"""An app's answer to one message, with nothing of the outside world."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from agentscope.message import Msg
from agentscope.model import ChatModel
from agentscope.runtime import AgentApp, Runtime
from agentscope.runtime.settings import Settings
from agentscope.session import InMemorySessionRepository, SessionRepository
from agentscope.testing._model import ScriptedModel
from agentscope.tool import Toolkit

_VARIABLE = re.compile(r"\$\{(\w+)\}")


async def run_app(
    app: type[AgentApp] | Path | str,
    message: Msg | str,
    *,
    models: ChatModel | Mapping[str, ChatModel] | None = None,
    tools: Toolkit | None = None,
    sessions: SessionRepository | None = None,
    session_id: str = "test",
    metadata: dict[str, Any] | None = None,
) -> list[Msg]:
    """Start an app, give it one message, stop it, and return what it said.

    ``app`` is an app class or the folder of a project, whose configuration is read; a ``${VAR}`` in it that isn't set
    stands for the text "not-set". ``models`` are the models by slot, or one for every slot; an offline slot that is
    left out stays as it is, a call of any other fails. ``tools`` stands in for the MCP servers, None means that
    there are none. The session is in memory unless ``sessions`` keeps it, so that the next call finds it. What the
    app raises is raised here, and ``UnknownNameError`` for a slot that isn't there.
    """
    if tools is not None and not isinstance(tools, Toolkit):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
        raise TypeError(f"tools is a {type(tools).__name__}: give a Toolkit, or FakeToolkit(function, …)")
    runtime = _runtime_of(app, models)
    slots = runtime.settings.models
    by_slot: dict[str, ChatModel] = {slot: ScriptedModel() for slot in slots if slots[slot].provider != "offline"}
    by_slot |= models if isinstance(models, Mapping) else {} if models is None else dict.fromkeys(slots, models)
    parts = {"tools": tools or Toolkit(), "session_repository": sessions or InMemorySessionRepository()}
    with runtime.override(models=by_slot, **parts):
        async with runtime:
            return [msg async for msg in runtime.invoke(message, session_id=session_id, metadata=metadata)]


def _runtime_of(app: type[AgentApp] | Path | str, models: ChatModel | Mapping[str, ChatModel] | None) -> Runtime:
    if isinstance(app, Path | str):
        file = Path(app, "agentapp.yaml")
        named = _VARIABLE.findall(file.read_text(encoding="utf-8")) if file.is_file() else []
        in_file = dotenv_values(file.with_name(".env"), interpolate=False)
        unset = {name: "not-set" for name in named if name not in in_file}
        return Runtime.from_project(app, environment={**unset, **os.environ})
    names = list(models) if isinstance(models, Mapping) else ["main"]
    offline = {name: {"provider": "offline"} for name in names}
    return Runtime(Settings.model_validate({"models": offline}), app=app)
