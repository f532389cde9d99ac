"""What a start says about who may call."""

import asyncio
import logging
import signal
import socket
from pathlib import Path

import pytest

from agentscope.runtime import Runtime, Service
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


async def test_a_reload_that_opens_the_address_to_everyone_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "app.py").write_text("from agentscope.runtime import AgentApp\n\n\nclass App(AgentApp):\n    pass\n")
    config = tmp_path / "agentapp.yaml"
    config.write_text("server: {host: 0.0.0.0, auth: {tokens: [alice alices-token-0123]}}\n")
    service = Service(Runtime.from_project(tmp_path))
    reloading: list[asyncio.Task[None]] = []

    async def reload_twice() -> None:
        assert "without authentication" not in caplog.text
        config.write_text("server: {host: 0.0.0.0}\n")
        await service.reload()
        await service.reload()

    def begin(address: str) -> None:
        reloading.append(asyncio.create_task(reload_twice()))
        reloading[0].add_done_callback(lambda _: signal.raise_signal(signal.SIGTERM))

    await serve(service, socket.create_server(("127.0.0.1", 0)), begin)
    reloading[0].result()
    assert caplog.text.count("without authentication") == 1
