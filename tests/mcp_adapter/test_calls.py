"""A call of a server's tool: what goes there, what comes back, and how it is broken off."""

import asyncio
import gc
import weakref
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from agentscope.errors import ToolArgumentsError, ToolServerError
from mcp_adapter.helpers import SECONDS, Account, Connect, call, said
from mcp_servers import EchoServer

# That is "pixel".
PIXEL = "cGl4ZWw="
PIXELS = {"type": "base64", "data": PIXEL}
ALL_KINDS = ["stdio", "stdio --legacy", "sse", "sse --legacy", "streamable_http", "streamable_http --legacy"]


@pytest.mark.parametrize("echo", [*ALL_KINDS, "streamable_http --legacy --stateless"], indirect=True)
async def test_twenty_calls_at_once_are_answered_each_with_its_own(connect: Connect) -> None:
    server = await connect()
    assert server.is_connected
    answers = await asyncio.gather(*(said(server, "echo", text=f"Köln {number}") for number in range(20)))
    assert answers == [f"Köln {number}" for number in range(20)]


@pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)
async def test_each_kind_of_content_becomes_a_block(connect: Connect) -> None:
    response = await call(await connect(), "contents")
    assert response.content == [
        {"type": "text", "text": "said"},
        {"type": "image", "source": {**PIXELS, "media_type": "image/png"}},
        {"type": "audio", "source": {**PIXELS, "media_type": "audio/wav"}},
        {"type": "text", "text": "embedded"},
        {"type": "image", "source": {**PIXELS, "media_type": "image/jpeg"}},
        {"type": "audio", "source": {**PIXELS, "media_type": "audio/mpeg"}},
        {"type": "video", "source": {**PIXELS, "media_type": "video/mp4"}},
        {"type": "text", "text": "[application/pdf, 5 bytes: file:///r]"},
        {"type": "text", "text": "notes: file:///notes.txt"},
    ]
    assert response.metadata is not None
    assert response.metadata["structured_content"] == {"answer": 42}
    assert response.metadata["meta"]["trace"] == "abc"
    assert response.metadata["resources"] == [{"uri": "file:///r", "mime_type": "application/pdf", "blob": PIXEL}]
    assert "is_error" not in response.metadata


@pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)
async def test_structured_content_alone_is_said_as_json(connect: Connect) -> None:
    response = await call(await connect(), "structured")
    assert response.content == [{"type": "text", "text": '{"answer": 42}'}]
    assert response.metadata is not None
    assert response.metadata["structured_content"] == {"answer": 42}


@pytest.mark.parametrize(
    ("tool", "text"), [("fail", "it went wrong"), ("echo", "Field required")], ids=["by itself", "for its arguments"]
)
@pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)
async def test_a_tool_that_fails_says_so_in_its_answer(connect: Connect, tool: str, text: str) -> None:
    response = await call(await connect(), tool)
    [block] = response.content
    assert block["type"] == "text"
    assert text in block["text"]
    assert response.metadata is not None
    assert response.metadata["is_error"] is True


@pytest.mark.parametrize("echo", ["stdio", "streamable_http", "streamable_http --legacy"], indirect=True)
async def test_an_answer_may_be_large(connect: Connect) -> None:
    assert len(await said(await connect(), "large", size=3_000_000)) == 3_000_000


@pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)
async def test_arguments_that_are_not_json_are_refused(connect: Connect) -> None:
    server = await connect()
    with pytest.raises(ToolArgumentsError, match="invalid arguments for echo: they can't be written as JSON"):
        await call(server, "echo", text=object())
    assert await said(server, "echo", text="still here") == "still here"


@pytest.mark.parametrize("echo", ALL_KINDS, indirect=True)
async def test_who_stops_reading_stops_the_tool(connect: Connect, reports: Account) -> None:
    server = await connect()
    reading = asyncio.create_task(call(server, "work", port=reports.port, seconds=SECONDS))
    await reports.hears("begun")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await reports.hears("cancelled")
    assert await said(server, "echo", text="still here") == "still here"


async def test_a_slow_call_ends_at_its_time_out_and_the_others_go_on(
    connect: Connect, echo: EchoServer, reports: Account
) -> None:
    server = await connect(timeout=2)
    pid, loop = echo.pid, asyncio.get_running_loop()
    began = loop.time()
    slow = asyncio.create_task(call(server, "work", port=reports.port, seconds=SECONDS))
    await reports.hears("begun")
    await asyncio.sleep(1.2)
    # It is under way when the slow one ends.
    other = asyncio.create_task(call(server, "work", port=reports.port, seconds=1.5))
    with pytest.raises(ToolServerError, match=r"'echo': did not answer the call to 'work' within 2 seconds"):
        await slow
    assert loop.time() - began < 4.5
    await other
    await reports.hears("cancelled")
    assert await said(server, "pid") == str(pid)
    assert sorted(reports.words) == ["begun", "begun", "cancelled", "done"]


async def test_a_tool_keeps_no_hold_of_who_called_it(connect: Connect) -> None:
    class Session:
        """Something of an invocation."""

    owner: ContextVar[Any] = ContextVar("owner")

    async def invoke() -> Any:
        session = Session()
        owner.set(session)
        server = await connect()
        await asyncio.gather(*(said(server, "echo", text="x") for _ in range(3)))
        return server, weakref.ref(session)

    server, session = await asyncio.get_running_loop().create_task(invoke(), context=copy_context())
    # The loop holds the task that it has just ended.
    await asyncio.sleep(0)
    gc.collect()
    assert session() is None
    assert server.is_connected
