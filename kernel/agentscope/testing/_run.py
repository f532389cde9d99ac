"""An app with nothing of the outside world: running, and its answer to one message."""

import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

from agentscope.message import Msg
from agentscope.model import ChatModel
from agentscope.runtime import AgentApp, Runtime
from agentscope.runtime.settings import Settings, load_settings
from agentscope.session import InMemorySessionRepository, SessionRepository
from agentscope.testing._model import ScriptedModel
from agentscope.testing._tools import FakeMcpServer
from agentscope.tool import Toolkit

App = type[AgentApp] | Path | str | Runtime
"""What can be tested: an app class, the folder of a project, or a runtime that is not started."""

Models = ChatModel | Mapping[str, ChatModel]
"""A model for every slot, or models by slot."""

_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_URL: Final = re.compile(r"""\w*url\s*:\s*["']?\$\{(\w+)\}""")

NOT_SET: Final = "not-set-in-tests"
"""What stands for a variable that isn't set: as long as a token has to be."""

_NOTHING_OUTSIDE: Final = ("tracing.endpoint=null", "platform.endpoint=null")
"""What a project would tell to others while it is tested."""


@asynccontextmanager
async def running(
    app: App,
    *,
    models: Models | None = None,
    tools: Toolkit | None = None,
    sessions: SessionRepository | None = None,
    **parts: object,
) -> AsyncGenerator[Runtime]:
    """Start an app with nothing of the outside world, give its runtime, and stop it at the end of the block.

    ``app`` is an app class, a ``Runtime`` that is not started, or the folder of a project, whose configuration is
    read; a ``${VAR}`` in it that isn't set, and a secret whose file isn't there, stand for the text
    "not-set-in-tests", or for a URL where one must be.
    ``models`` are the models by slot, or one for every slot; an offline slot that is left out stays as it is, a call
    of any other raises ``AssertionError``, and so does the end of the block when the app has caught that. ``tools``
    stands in for the MCP servers; those of them that it lacks, by name, have no tools. ``sessions`` keeps the
    sessions, None means that they end with the block. ``parts`` stand in for other providers of the container, by
    name. Raises ``UserError`` for mistakes in the project, and ``UnknownNameError`` for a slot or a provider that
    isn't there.
    """
    runtime = _runtime_of(app, models)
    by_slot = _models_of(runtime, models)
    async with started(runtime, by_slot, tools, sessions, **parts):
        yield runtime
    # One set of recorded models tells for all its slots.
    witnesses = [models] if hasattr(models, "problems") else list(by_slot.values())
    problems = [problem for witness in witnesses for problem in getattr(witness, "problems", None) or ()]
    if problems:
        raise AssertionError("\n".join(dict.fromkeys(problems)))


@asynccontextmanager
async def started(
    runtime: Runtime,
    models: Mapping[str, ChatModel],
    tools: Toolkit | None = None,
    sessions: SessionRepository | None = None,
    **parts: object,
) -> AsyncGenerator[Runtime]:
    """The runtime with these in the place of its parts, from its start to its end."""
    toolkit = Toolkit() if tools is None else tools
    repository = InMemorySessionRepository() if sessions is None else sessions
    fakes = {"tools": toolkit, "session_repository": repository, **parts}
    with runtime.override(models=models, **fakes):
        # `runtime.tools.sources["search"]` is what apps register under a name of their own.
        for server in runtime.settings.mcp_servers.keys() - toolkit.sources.keys():
            toolkit.add_source(FakeMcpServer(name=server))
        async with runtime:
            yield runtime


def _models_of(runtime: Runtime, models: Models | None) -> dict[str, ChatModel]:
    slots = runtime.settings.models
    by_slot: dict[str, ChatModel] = {
        slot: ScriptedModel(slot=slot) for slot in slots if slots[slot].provider != "offline"
    }
    given = models if isinstance(models, Mapping) else {} if models is None else dict.fromkeys(slots, models)
    return {**by_slot, **given}


async def run_app(
    app: App,
    message: Msg | str,
    *,
    models: Models | None = None,
    tools: Toolkit | None = None,
    sessions: SessionRepository | None = None,
    session_id: str = "test",
    metadata: dict[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> list[Msg]:
    """Start an app as ``running`` does, give it one message, stop it, and return what it said.

    The session is in memory unless ``sessions`` keeps it, so that the next call finds it. ``identity`` is what the
    app finds at ``ctx.identity``; with ``session.owner_claim`` it needs that claim. What the app raises is raised
    here.
    """
    async with running(app, models=models, tools=tools, sessions=sessions) as runtime:
        return [
            msg async for msg in runtime.invoke(message, session_id=session_id, metadata=metadata, identity=identity)
        ]


def project_runtime(project: Path | str, assignments: Sequence[str] = ()) -> Runtime:
    """The runtime of a project folder that tells nobody of itself, whether what it names of variables and files of
    secrets is there or not.

    ``assignments`` are settings such as ``session.auto_save=true``. Raises ``UserError`` for mistakes in the project.
    """
    file = Path(project, "agentapp.yaml")
    written = ""
    # What can't be read, or is no UTF-8, is told of when it is loaded.
    with suppress(OSError):
        written = file.read_text(encoding="utf-8", errors="replace")
    unset = dict.fromkeys(_VARIABLE.findall(written), NOT_SET)
    unset |= dict.fromkeys(_URL.findall(written), "https://not-set.example.com")
    in_file: Mapping[str, str | None] = {}
    with suppress(OSError, UnicodeDecodeError):
        in_file = dotenv_values(file.with_name(".env"), interpolate=False)
    environment = {name: value for name, value in unset.items() if name not in in_file} | os.environ
    loaded = load_settings(
        Path(project),
        assignments=[*_NOTHING_OUTSIDE, *assignments],
        environment=environment,
        absent_secret=NOT_SET,
    )
    return Runtime(loaded.settings, project=loaded.project, load=loaded.again)


def _runtime_of(app: App, models: Models | None) -> Runtime:
    if isinstance(app, Runtime):
        return app
    if isinstance(app, Path | str):
        return project_runtime(app)
    names = list(models) if isinstance(models, Mapping) else ["main"]
    offline = {name: {"provider": "offline"} for name in names}
    return Runtime(Settings.model_validate({"models": offline}), app=app)
