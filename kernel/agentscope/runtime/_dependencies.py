"""Whether what a runtime depends on answers."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Literal

from agentscope.errors import SessionStoreError
from agentscope.session import SessionRepository
from agentscope.tool import ToolServer

_log = logging.getLogger("agentscope.runtime")

_SECONDS = 2.0

DependencyState = Literal["up", "down", "down, not required"]
"""How something is that the runtime depends on. It goes on without what is not required."""


async def check(repository: SessionRepository, servers: Mapping[str, ToolServer]) -> dict[str, DependencyState]:
    """How the session store and each MCP server is, by name."""
    states: dict[str, DependencyState] = {"database": "up" if await _answers(repository) else "down"}
    for name, server in servers.items():
        states[f"mcp_servers.{name}"] = (
            "up" if server.is_connected else "down" if server.required else "down, not required"
        )
    return states


async def _answers(repository: SessionRepository) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            await repository.ping()
    except (SessionStoreError, TimeoutError) as error:
        _log.warning("the session store does not answer: %s", error or f"no answer within {_SECONDS:g} seconds")
        return False
    except Exception:
        _log.exception("the session store does not answer")
        return False
    return True
