"""``agentscope run --reload``: the project is loaded again when a file of it changes."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

from agentscope.errors import ProjectError
from agentscope.runtime import Service
from agentscope.runtime.settings import LoadedSettings
from agentscope_cli._types import keep_types_current
from agentscope_cli._watching import watch_project

_log = logging.getLogger("agentscope.cli")

_NAMED = 5
"""How many changed files are named."""


async def reloading(
    service: Service, loaded: LoadedSettings, assignments: Sequence[str], serving: Coroutine[Any, Any, int]
) -> int:
    """Serve, and reload at each change of the project's files; return the exit status of serving.

    ``assignments`` are those of the command line.
    """
    watching = asyncio.create_task(_watch(service, loaded, assignments))
    try:
        return await serving
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(service: Service, loaded: LoadedSettings, assignments: Sequence[str]) -> None:
    async def reload(changed: Collection[Path]) -> None:
        _log.info("changed: %s", _named(changed, loaded.project))
        await asyncio.to_thread(keep_types_current, loaded.project, loaded.config, assignments)
        # Not waited for: a start that hangs is given up when there is something newer.
        service.reload_soon()

    try:
        await watch_project(loaded.project, loaded.config, reload)
    except ProjectError as error:
        # Where the mistake is says the message.
        _log.error("files are not watched any more, the server goes on: %s", error)
    except Exception:
        # A boundary: nobody else would be told, and the server goes on without.
        _log.exception("files are not watched any more, the server goes on")


def _named(changed: Collection[Path], project: Path) -> str:
    names = sorted(str(path.relative_to(project)) if path.is_relative_to(project) else path.name for path in changed)
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
