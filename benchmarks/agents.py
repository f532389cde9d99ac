"""Agents and tools without HTTP: what a step, a list of schemas and a session in memory cost, beside their limits."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from agentscope.agent import ReActAgent
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModelBase
from agentscope.runtime import AgentApp, Runtime, SessionContext
from agentscope.runtime.settings import Settings
from agentscope.testing import tool_call
from agentscope.tool import Toolkit
from benchmarks.processes import Workplace
from benchmarks.table import Row

_SESSIONS: Final = 10_000
_MESSAGES: Final = 20
_STEP_LIMIT: Final = 300.0  # µs
_SCHEMAS_LIMIT: Final = 1000.0  # µs
_RESIDENT_LIMIT: Final = 150.0  # MB


class _OneCall(ChatModelBase):
    """Calls the tool, then answers, in turns."""

    def __init__(self) -> None:
        self._calls = 0

    async def stream(self, messages: Sequence[Msg], **kwargs: Any) -> AsyncIterator[ChatChunk]:
        self._calls += 1
        if self._calls % 2:
            yield ChatChunk(blocks=[tool_call("double", number=4)], stop_reason="tool_use")
        else:
            yield ChatChunk("eight", stop_reason="stop")


async def _double(number: int) -> str:
    """Twice a number."""
    return str(2 * number)


def measure_agent_step(workplace: Workplace) -> Iterator[Row | str]:
    """A reply that takes a call of the model, of the tool, and of the model again; streamed."""
    toolkit = Toolkit()
    toolkit.register_tool_function(_double, func_name="double")

    async def reply() -> float:
        agents = [ReActAgent("agent", "Be brief.", _OneCall(), toolkit=toolkit) for _ in range(200)]
        began = perf_counter()
        for agent in agents:
            async for _ in agent.stream(Msg("user", "twice four", "user")):
                pass
        return (perf_counter() - began) / len(agents) * 1e6

    took = [asyncio.run(reply()) for _ in range(15)]
    yield Row("an agent's step with one tool, of its limit", "µs", took, [_STEP_LIMIT] * len(took), 1.0)


def measure_schemas(workplace: Workplace) -> Iterator[Row | str]:
    """The schemas of 500 tools, after the first time."""
    toolkit = Toolkit()
    for number in range(500):
        toolkit.register_tool_function(_double, func_name=f"double_{number}")
    toolkit.get_json_schemas()
    took: list[float] = []
    for _ in range(50):
        began = perf_counter()
        toolkit.get_json_schemas()
        took.append((perf_counter() - began) * 1e6)
    yield Row("schemas of 500 tools, of their limit", "µs", took, [_SCHEMAS_LIMIT] * len(took), 1.0)


def measure_resident(workplace: Workplace) -> Iterator[Row | str]:
    """10,000 sessions of 20 short messages in memory, against none."""
    took: list[float] = []
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.agents"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        took.append(float(run.stdout))
    yield Row("10,000 sessions in memory, of their limit", "MB", took, [_RESIDENT_LIMIT] * len(took), 1.0)


class _Remembers(AgentApp):
    def __init__(self) -> None:
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> None:
        for number in range(_MESSAGES):
            role: Any = "assistant" if number % 2 else "user"
            text = f"message {number} of {ctx.session_id}, a short one of a dozen words"
            await self.memory.add(Msg(role, text, role))


async def _resident() -> float:
    settings = Settings.model_validate({"models": {}, "session": {"backend": "memory", "max_resident": 2 * _SESSIONS}})
    async with Runtime(settings, app=_Remembers) as rt:
        await anext(rt.invoke("warm up"), None)
        before = _megabytes()
        for number in range(_SESSIONS):
            await anext(rt.invoke("fill", session_id=f"session-{number}"), None)
        return _megabytes() - before


def _megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(asyncio.run(_resident()))
