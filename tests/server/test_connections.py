"""What connections may do: how many there are, and how long they take to say what they want."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from io import BytesIO

import pytest
from aiohttp import ClientSession

from agentscope.message import Msg
from agentscope.runtime import AgentApp
from serving import Echo, Served, invocation, served


@asynccontextmanager
async def opened(server: Served, *said: bytes) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which something was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.writelines(said)
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_connection_past_the_limit_is_told_so_and_ends() -> None:
    async with served(Echo, server={"max_connections": 2}) as server:
        async with opened(server), opened(server):
            async with ClientSession(f"http://127.0.0.1:{server.port}") as late:
                response = await late.post("/invoke", json=invocation())
                assert response.status == 429
                assert response.headers["Retry-After"] == "1"
                assert response.headers["Connection"] == "close"
                assert (await response.json())["error"]["code"] == "OVERLOADED"
                # Whoever looks after the process must not think that it hangs.
                assert (await late.get("/health")).status == 200
        assert (await server.post(invocation())).status == 200


async def test_a_head_that_comes_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentscope.server._connections.HEAD_SECONDS", 0.3)
    monkeypatch.setattr("agentscope.server._connections._LOOK_AT_ALL_SECONDS", 0.05)
    health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served(Echo) as server, opened(server, b"POST /invoke HT") as (fresh, _):
        async with opened(server, health) as (used, used_writer), opened(server) as (idle, _):
            await used.readuntil(b"}")
            used_writer.write(b"GET /health HTTP/1.1\r\n")
            assert await fresh.read() == b""
            assert await used.read() == b""
            # One that says nothing takes the place of others.
            assert await idle.read() == b""


async def test_a_body_that_comes_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentscope.server._body.BODY_SECONDS", 0.2)
    said = b"POST /invoke HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    async with served(Echo) as server, opened(server, said) as (reader, _):
        head, _, body = (await reader.readuntil(b"}}")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"Connection: close" in head
    assert json.loads(body)["error"]["code"] == "INVALID_REQUEST"


async def test_a_head_without_end_is_refused() -> None:
    said = [b"GET /health HTTP/1.1\r\nHost: x\r\n", *(b"X-%d: y\r\n" % number for number in range(2000))]
    async with served(Echo) as server, opened(server, *said) as (reader, _):
        assert (await reader.readline()).startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))


async def test_after_an_expectation_that_is_none_the_connection_ends_whether_or_not_the_body_comes() -> None:
    said = b"POST /invoke HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\nContent-Length: 1000\r\n\r\n"
    async with served(Echo) as server, opened(server, said) as (reader, _):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Connection: close" in head
        await reader.read()


async def test_so_many_brackets_are_refused_that_reading_them_would_hold_up_others() -> None:
    async with served(Echo) as server:
        lists: list[list[int]] = [[]] * 300_000
        body = BytesIO(json.dumps(invocation(metadata={"x": lists})).encode())
        response = await server.client.post("/invoke", data=body, headers={"Content-Type": "application/json"})
        assert response.status == 400
        assert "objects and lists" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("items", [[1] * 30_000, [{"type": "text"}] * 9_000, [{"type": "text", "text": ""}] * 11_000])
async def test_a_long_output_of_a_tool_that_is_wrong_gets_a_short_answer(items: list[object]) -> None:
    content = [{"type": "tool_result", "id": "t", "name": "tool", "output": items}]
    async with served(Echo) as server:
        response = await server.post(invocation(content))
        text = await response.text()
    assert response.status == 400
    assert len(text) < 10_000
    assert 1 <= len(json.loads(text)["error"]["details"]) <= 20


async def test_a_document_that_nobody_reads_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentscope.server._connections.STALLED_SECONDS", 0.3)
    monkeypatch.setattr("agentscope.server._connections._LOOK_AT_ALL_SECONDS", 0.05)

    class Long(AgentApp):
        async def __call__(self, msg: Msg, ctx: object) -> Msg:
            return Msg("assistant", "x" * 30_000_000, "assistant")

    body = json.dumps(invocation()).encode()
    head = b"POST /invoke?stream=false HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with served(Long) as server, opened(server, head, body) as (reader, _):
        with pytest.raises(ConnectionError):  # noqa: PT012 - the connection may be seen to be gone at any read
            await asyncio.sleep(1)
            while await reader.read(2**20):
                pass
            raise ConnectionResetError


async def test_a_client_that_reads_slowly_but_steadily_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentscope.server._connections.STALLED_SECONDS", 0.5)
    monkeypatch.setattr("agentscope.server._connections._LOOK_AT_ALL_SECONDS", 0.05)

    class Long(AgentApp):
        async def __call__(self, msg: Msg, ctx: object) -> Msg:
            return Msg("assistant", "x" * 16_000_000, "assistant")

    async with served(Long) as server:
        response = await server.post(invocation())
        read = 0
        while piece := await response.content.read(2**20):
            read += len(piece)
            await asyncio.sleep(0.05)
        assert read > 16_000_000
