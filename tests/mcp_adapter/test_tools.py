"""Which tools of a server there are, under which names, and how changes are followed."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from agentscope.tool import ToolSource
from mcp_adapter.helpers import Connect, Lines, said
from mcp_servers import EchoServer

ALL_KINDS = ["stdio", "stdio --legacy", "sse", "sse --legacy", "streamable_http", "streamable_http --legacy"]
ONE_KIND = pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)


@ONE_KIND
async def test_a_tool_has_a_name_a_description_and_the_schema_of_its_arguments(connect: Connect) -> None:
    server = await connect()
    assert isinstance(server, ToolSource)
    assert server.name == "echo"
    assert server.required
    assert repr(server) == "<MCP server 'echo'>"
    tool = server.tools["echo"]
    assert (tool.name, tool.description) == ("echo", "Say it again.")
    assert tool.parameters["properties"]["text"]["type"] == "string"


@ONE_KIND
async def test_every_page_of_the_list_is_read(connect: Connect) -> None:
    assert {"echo", "contents", "grumble", "offspring"} <= set((await connect()).tools)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"include": ["f*", "e?ho"]}, {"echo", "fail"}),
        ({"include": ["f*", "echo"], "exclude": ["*l"]}, {"echo"}),
        ({"include": ["F*"]}, set[str]()),
        ({"include": ["echo"], "prefix": "my-"}, {"my-echo"}),
        ({"include": ["echo"], "prefix": "x" * 63}, {"x" * 63 + "e"}),
        ({"include": ["odd.name"]}, {"odd_name"}),
    ],
    ids=["include", "exclude wins", "case counts", "prefix", "too long", "odd name"],
)
@ONE_KIND
async def test_the_settings_choose_and_name_the_tools(
    connect: Connect, values: dict[str, Any], expected: set[str]
) -> None:
    server = await connect(**values)
    assert set(server.tools) == expected
    if "odd_name" in expected:
        assert await said(server, "odd_name") == "odd"
    elif "my-echo" in expected:
        assert await said(server, "my-echo", text="x") == "x"


@ONE_KIND
async def test_of_two_tools_with_one_name_the_first_stays(connect: Connect, lines: Lines) -> None:
    server = await connect()
    assert await said(server, "odd_name") == "odd"
    told = "its tool 'odd_name' is left out: 'odd.name' has the same name, 'odd_name'"
    assert lines.count(told, logging.WARNING) == 1


@pytest.mark.parametrize("echo", ALL_KINDS, indirect=True)
async def test_a_change_of_the_tools_is_another_mapping(connect: Connect, echo: EchoServer, lines: Lines) -> None:
    server = await connect(exclude=["odd_name", "hidden"])
    before: Mapping[str, object] = server.tools
    known = set(before)
    await said(server, "grow", name="later")
    await lines.has(f"{len(known) + 1} tools")
    assert set(server.tools) == known | {"later"}
    assert set(before) == known
    assert await said(server, "later") == str(echo.pid)
    after = server.tools
    await said(server, "grow", name="hidden")
    assert server.tools is after
    await echo.kill()


@ONE_KIND
async def test_after_a_restart_the_tools_are_those_of_the_new_server(
    connect: Connect, echo: EchoServer, lines: Lines
) -> None:
    server = await connect(exclude=["odd_name"])
    known = set(server.tools)
    await said(server, "grow", name="later")
    await lines.has(f"{len(known) + 1} tools")
    later = server.tools["later"]
    await echo.restart()
    await said(server, "echo", text="x")
    assert set(server.tools) == known
    # A model may have been told of it before.
    [response] = [response async for response in later.call({})]
    assert response.metadata is not None
    assert response.metadata["is_error"] is True


@ONE_KIND
async def test_a_glob_that_fits_no_tool_is_a_warning_with_the_names_there_are(connect: Connect, lines: Lines) -> None:
    await connect(include=["wether", "echo"], exclude=["fail"])
    assert lines.count("'wether' fits none of its tools (there are: ", logging.WARNING) == 1
    assert lines.count("fits none of its tools", logging.WARNING) == 1
