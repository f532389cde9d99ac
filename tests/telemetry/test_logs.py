"""Where a record of the log comes from."""

import io
import json
import logging
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

from agentscope.errors import SessionStoreError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, runtime
from agentscope.telemetry import log_context
from agentscope.testing import InMemorySessionRepository
from agentscope_cli._logging import IdsFilter, JsonFormatter, TextFormatter
from serving import Echo, invocation
from telemetry.apps import serving, tool_use
from telemetry.collector import Collector

_log = logging.getLogger("tests.app")


class Log:
    """What the command line would have written."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.addFilter(IdsFilter(log_context))
        self.handler.setFormatter(formatter)

    def text(self) -> str:
        """All of it."""
        return self.stream.getvalue()

    def records(self, logger: str) -> list[dict[str, Any]]:
        """The JSON lines of a logger."""
        lines = [json.loads(line) for line in self.text().splitlines()]
        return [line for line in lines if line["logger"] == logger]


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Generator[Log]:
    written = Log(getattr(request, "param", JsonFormatter)())
    root = logging.getLogger()
    level = root.level
    root.addHandler(written.handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    yield written
    root.removeHandler(written.handler)
    root.setLevel(level)


class Talkative(AgentApp):
    """Logs in each place where an app's code runs."""

    async def on_startup(self) -> None:
        """Register a tool that logs in a thread."""

        def in_a_thread() -> str:
            """Log."""
            _log.info("thread")
            raise RuntimeError

        runtime.tools.register_tool_function(in_a_thread)
        _log.info("start")

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        """Log here, in a task beside, and in the tool."""
        _log.info("call")

        async def beside() -> None:
            _log.info("task")

        ctx.spawn(beside())
        async for _ in runtime.tools.call_tool_function(tool_use("in_a_thread")):
            pass
        yield Msg("assistant", "done", "assistant")


async def test_every_record_of_an_invocation_has_its_ids(log: Log) -> None:
    async with Collector() as collector, serving(Talkative, tracing={"endpoint": collector.endpoint}) as served:
        await served.lines(invocation("hello", "s7"), headers={"X-Request-Id": "r7"})
    started, *others = log.records("tests.app")
    assert "request_id" not in started
    assert sorted(record["message"] for record in others) == ["call", "task", "thread"]
    root, tool = collector.one("POST /invoke"), collector.one("execute_tool in_a_thread")
    for record in others:
        assert (record["request_id"], record["session_id"]) == ("r7", "s7")
        assert record["invocation_id"] == root.attributes["agentscope.invocation_id"]
        assert record["trace_id"] == root.trace_id
        assert record["span_id"] == (tool if record["message"] == "thread" else root).span_id
    # A tool's failure never said which request it was of.
    (failure,) = [record for record in log.records("agentscope.tool") if "failed" in record["message"]]
    assert (failure["request_id"], failure["span_id"]) == ("r7", tool.span_id)


async def test_an_invocation_ends_with_one_line_for_those_who_look_closely(log: Log) -> None:
    async with serving(Echo) as served:
        await served.lines(invocation("hello", "s7"), headers={"X-Request-Id": "r7"})
    (ended,) = log.records("agentscope.invocation")
    assert ended["level"] == "debug"
    assert ended["message"].startswith("invocation ended: ok, 1 lines, ")
    told = {"code", "seconds", "lines", "input_tokens", "output_tokens", "request_id", "session_id", "invocation_id"}
    assert told <= ended.keys()
    assert (ended["code"], ended["lines"], ended["request_id"], ended["session_id"]) == ("ok", 1, "r7", "s7")
    assert "trace_id" not in ended


class Unreachable(InMemorySessionRepository):
    """A store that can't be reached."""

    async def list_sessions(self, *args: Any, **options: Any) -> Any:
        """Fail."""
        raise SessionStoreError("no answer")


async def test_a_record_of_a_request_outside_any_invocation_has_the_id_of_that_request(log: Log) -> None:
    async with serving(Echo) as served:
        with served.runtime.override(session_repository=Unreachable()):
            for request_id in ("r1", "r2"):
                response = await served.client.get("/sessions", headers={"X-Request-Id": request_id})
                assert response.status == 503
        # On the same connection, whose task is the same: nothing of the last request is left in it.
        assert (await served.client.get("/health")).status == 200
    first, second = log.records("agentscope.server")
    assert (first["request_id"], second["request_id"]) == ("r1", "r2")


@pytest.mark.parametrize("log", [TextFormatter], indirect=True, ids=["text"])
async def test_text_names_the_request_once(log: Log) -> None:
    async with serving(Talkative) as served:
        await served.lines(invocation(), headers={"X-Request-Id": "r7"})
        await (await served.post({}, headers={"X-Request-Id": "r8"})).read()
    lines = log.text().splitlines()
    assert "INFO tests.app: start" in lines
    assert "INFO tests.app: call [r7]" in lines
    assert not any(line.count("r7") > 1 for line in lines)


async def test_outside_everything_there_is_nothing_to_name() -> None:
    assert log_context() == {}
