"""Whether a call may have reached the server, when nobody waits for its answer any longer."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp._address import address_of
from agentscope_adapters.mcp._health import Attempt, Health, current_attempt
from agentscope_adapters.mcp._http import WatchedClient, load_certificates


@pytest.fixture
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """A port that takes connections and says nothing; a full one takes no more."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        number: int = listener.getsockname()[1]
        if request.param == "full":
            sockets.enter_context(socket.create_connection(("127.0.0.1", number)))
        yield number


@pytest.mark.parametrize(("port", "sent"), [("empty", 1), ("full", 0)], ids=["sent", "connecting"], indirect=["port"])
@pytest.mark.parametrize("end", ["severed", "cancelled"])
async def test_a_call_that_was_still_connecting_did_not_leave(port: int, sent: int, end: str, tmp_path: Path) -> None:
    settings = McpServerSettings(transport="streamable_http", url=f"http://127.0.0.1:{port}/mcp")
    health, attempt = Health(), Attempt()
    current_attempt.set(attempt)
    address, verify = address_of("echo", settings, tmp_path), await load_certificates()
    async with WatchedClient(address, settings, health, verify, answers_on_stream=False) as client:
        request = client.build_request("POST", address.url, json={"method": "tools/call"})
        sending = asyncio.create_task(client.send(request))
        # As far as it comes.
        await asyncio.sleep(0.1)
        if end == "severed":
            health.sever()
            assert (await sending).status_code == 502
        else:
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
    assert attempt.sent == sent
