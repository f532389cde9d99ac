"""Schemathesis tries what the OpenAPI document allows, and what it forbids, and finds nothing to complain about.

By hand, for as long as one likes, on a server that runs:
``schemathesis run http://127.0.0.1:8080/openapi.json --checks all --max-examples 500``; where there is authentication,
with ``-H "Authorization: Bearer …"``.
"""

import asyncio
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, runtime
from serving import served

TOKEN = "a-token-of-the-tests-0123456789"
COMMAND = Path(sysconfig.get_path("scripts")) / "schemathesis"


class Remembers(AgentApp):
    """Says what it was told, and keeps it."""

    def __init__(self) -> None:
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        """Yield one message."""
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        await self.memory.add(msg)
        yield Msg("assistant", msg.get_text_content() or "", "assistant")
        await runtime.session.save_session_state(ctx.session_id, memory=self.memory)


@pytest.mark.parametrize(
    ("server", "backend", "options"),
    [
        pytest.param({}, "memory", ["--phases", "examples,coverage"], id="as it comes"),
        pytest.param(
            {"auth": {"tokens": [TOKEN]}, "replay_ttl": 60, "metrics": True},
            "sql",
            ["--max-examples", "3", "-H", f"Authorization: Bearer {TOKEN}"],
            id="with everything",
        ),
    ],
)
async def test_schemathesis_finds_nothing(
    server: dict[str, Any], backend: str, options: list[str], tmp_path: Path
) -> None:
    session = {"backend": backend, "url": f"sqlite:///{tmp_path}/sessions.db"}
    async with served(Remembers, server=server, session=session) as running:
        address = f"http://127.0.0.1:{running.port}/openapi.json"
        fixed = ["--checks", "all", "--generation-deterministic", "--seed", "1", "--no-color"]
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            "run",
            address,
            *fixed,
            *options,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(300):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, said.decode()
    assert b"passed" in said
