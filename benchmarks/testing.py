"""What a test costs: an override, a kernel from fakes, a model's slot, the guide's apps; beside their limits."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter
from typing import Final

from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.runtime.settings import Settings
from agentscope.testing import FakeToolkit, ScriptedModel, run_app, running
from benchmarks.processes import Workplace
from benchmarks.table import Row

_OVERRIDE_LIMIT: Final = 20.0  # µs
_KERNEL_LIMIT: Final = 5.0  # ms
_RESOLVE_LIMIT: Final = 1.0  # µs
_APP_LIMIT: Final = 50.0  # ms

_GUIDE: Final = Path(__file__).parents[1] / "tests" / "guide" / "developer-guide.txt"
_APPS: Final = {
    "quickstart": "### 3. 实现 App 类",
    "tools": "### 带工具的 ReActAgent",
    "agents": "### 多 Agent 协作",
}
_MODELS: Final = """\
models:
  main: {provider: openai, model: gpt-4, api_key: "${OPENAI_API_KEY}"}
  assistant: {provider: openai, model: gpt-4, api_key: "${OPENAI_API_KEY}"}
mcp_servers:
  search: {url: "https://mcp.example.com/search/sse", transport: sse}
"""


class _Echo(AgentApp):
    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        yield msg


class _Resolves(AgentApp):
    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        count = 100_000
        began = perf_counter()
        for _ in range(count):
            _ = runtime.models.main
        took = (perf_counter() - began) / count * 1e6
        yield Msg("assistant", str(took), "assistant")


def measure_override(workplace: Workplace) -> Iterator[Row | str]:
    """A model put in the place of another, and taken away again."""

    async def measure() -> list[float]:
        took: list[float] = []
        async with running(_runtime(_Echo)) as rt:
            models = {"main": ScriptedModel()}
            for _ in range(50):
                began = perf_counter()
                for _ in range(100):
                    with rt.override(models=models):
                        pass
                took.append((perf_counter() - began) / 100 * 1e6)
        return took

    took = asyncio.run(measure())
    yield Row("an override and its undoing, of its limit", "µs", took, [_OVERRIDE_LIMIT] * len(took), 1.0)


def measure_kernel(workplace: Workplace) -> Iterator[Row | str]:
    """A kernel from fakes, started and stopped; what one holds is gone before the next."""

    async def measure() -> list[float]:
        took: list[float] = []
        for _ in range(50):
            began = perf_counter()
            for _ in range(10):
                async with running(_runtime(_Echo), tools=FakeToolkit()):
                    pass
            took.append((perf_counter() - began) / 10 * 1e3)
        return took

    took = asyncio.run(measure())
    yield Row("a kernel from fakes, of its limit", "ms", took, [_KERNEL_LIMIT] * len(took), 1.0)


def measure_resolve(workplace: Workplace) -> Iterator[Row | str]:
    """``runtime.models.main`` inside an invocation."""

    async def measure() -> list[float]:
        async with running(_runtime(_Resolves)) as rt:
            return [float(str(msg.content)) for _ in range(15) async for msg in rt.invoke("how long")]

    took = asyncio.run(measure())
    yield Row("runtime.models.main, of its limit", "µs", took, [_RESOLVE_LIMIT] * len(took), 1.0)


def measure_guide(workplace: Workplace) -> Iterator[Row | str]:
    """Each of the guide's apps in a test: its project read, started with fakes, asked, and stopped."""
    for name, heading in _APPS.items():
        project = workplace.folder / f"guide {name}"
        project.mkdir()
        (project / "agentapp.yaml").write_text(_MODELS, encoding="utf-8")
        (project / "app.py").write_text(_program(heading), encoding="utf-8")
        took: list[float] = []
        for _ in range(20):
            began = perf_counter()
            answer = asyncio.run(run_app(project, "hello", models=ScriptedModel("hello", "there")))
            took.append((perf_counter() - began) * 1e3)
            if not answer:
                raise RuntimeError(f"{name}: the app said nothing")
        yield Row(f"a test of the guide's {name}, of its limit", "ms", took, [_APP_LIMIT] * len(took), 1.0)


def _runtime(app: type[AgentApp]) -> Runtime:
    main = {"provider": "openai", "model": "gpt-4", "api_key": "not-used"}
    return Runtime(Settings.model_validate({"models": {"main": main}}), app=app)


def _program(heading: str) -> str:
    section = _GUIDE.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    return section.split("```python\n", 1)[1].split("```\n", 1)[0]
