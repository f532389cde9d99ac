"""Headers, logins, queries and variables stay where they belong."""

import asyncio
import logging
from typing import Any

import pytest

from agentscope.errors import ToolServerError
from mcp_adapter.helpers import SECONDS, Account, Connect, Lines, call, said
from mcp_servers import EchoServer

WORDS = ("t0ken", "pa55word", "ann:", "qu3ry", "var1able", "YW5uOnBhNTV3b3Jk")


async def test_no_secret_is_in_an_error_a_log_or_a_repr(
    connect: Connect, echo: EchoServer, reports: Account, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "")
    line, values = "I know var1able", dict[str, Any](env={"KEY": "var1able"})
    if echo.transport != "stdio":
        url = str(echo.settings().url).replace("//", "//ann:pa55word@") + "?key=qu3ry"
        line, values = "I know nothing", {"url": url, "headers": {"X-Key": "Bearer t0ken"}}
    server = await connect(timeout=2, **values)
    await said(server, "grumble", line=line)
    lost = asyncio.create_task(call(server, "work", port=reports.port, seconds=SECONDS))
    await reports.hears("begun")
    await echo.kill()
    with pytest.raises(ToolServerError) as caught:
        await lost
    told = [repr(caught.value), repr(server), repr(vars(server)), repr(server.tools)]
    if echo.transport == "stdio":
        assert "stderr: I know ***" in caplog.text
    else:
        with pytest.raises(ToolServerError) as caught:
            await call(server, "echo", text="x")
        told.append(str(caught.value))
    await lines.has("connection lost")
    text = caplog.text + "".join(told)
    assert [word for word in WORDS if word in text] == []
