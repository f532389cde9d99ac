"""What a start says about who may call."""

import logging
import signal
import socket

import pytest

from agentscope.runtime import Runtime
from agentscope.server import serve
from serving import Echo, settings


@pytest.mark.parametrize(
    ("host", "auth", "warned"),
    [
        pytest.param("127.0.0.1", {}, False, id="this machine alone"),
        pytest.param("0.0.0.0", {}, True, id="everyone"),
        pytest.param("0.0.0.0", {"tokens": ["alice alices-token-0123"]}, False, id="everyone with a token"),
    ],
)
async def test_an_address_that_others_reach_is_warned_about_without_authentication(
    host: str, auth: dict[str, object], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    sock = socket.create_server(("127.0.0.1", 0))

    def stop(address: str) -> None:
        signal.raise_signal(signal.SIGTERM)

    server = {"host": host, "auth": auth} if auth else {"host": host}
    await serve(Runtime(settings(server=server), app=Echo), sock, stop)
    assert ("without authentication" in caplog.text) is warned
