"""Tools of sources come and go, and no source takes a name that another has."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentscope.errors import ToolNameError
from agentscope.message import ToolUseBlock
from agentscope.tool import Toolkit, ToolResponse
from tool.workbench import FakeSource, names, refusal, said, text_of, toolkit_of


def one() -> str:
    """One."""
    return "one"


def two() -> str:
    """Two."""
    return "two"


def three() -> str:
    """Three."""
    return "three"


def other() -> str:
    """One of the same name."""
    return "other"


async def test_tools_that_come_later_or_go_are_followed() -> None:
    source = FakeSource("s")
    toolkit = toolkit_of(one)
    await toolkit.register_mcp_client(source)
    toolkit.register_tool_function(three)
    assert names(toolkit) == ["one", "three"]
    source.offer(two)
    assert names(toolkit) == ["one", "two", "three"]
    assert await said(toolkit, "two") == "two"
    source.offer()
    assert await refusal(toolkit, "two") == "Error: there is no tool named 'two'"


async def test_a_selection_presets_and_a_group_go_by_the_sources_names() -> None:
    def search(query: str, key: str) -> str:
        return f"{query} with {key}"

    toolkit = Toolkit()
    toolkit.create_tool_group("web", "The web", active=True)
    await toolkit.register_mcp_client(
        FakeSource("a", search, one, two), "web", ["search", "one"], None, {"search": {"key": "k"}}
    )
    await toolkit.register_mcp_client(FakeSource("b", two, three), disable_funcs=["two"])
    assert names(toolkit) == ["search", "one", "three"]
    assert toolkit.get_json_schemas()[0]["function"]["parameters"] == {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    }
    assert await said(toolkit, "search", query="q") == "q with k"
    assert "there is no argument key" in await refusal(toolkit, "search", query="q", key="mine")
    toolkit.update_tool_groups("web", active=False)
    assert names(toolkit) == ["three"]
    toolkit.remove_tool_groups("web")
    assert list(toolkit.sources) == ["b"]


async def test_what_is_both_enabled_and_disabled_is_an_error() -> None:
    with pytest.raises(ValueError, match="both enabled and disabled: one"):
        await Toolkit().register_mcp_client(FakeSource("s"), enable_funcs=["one", "two"], disable_funcs=["one"])


@pytest.mark.parametrize(
    ("strategy", "known", "texts"),
    [
        ("skip", ["one", "two", "three"], ["one", "two"]),
        ("override", ["three", "one", "two"], ["other", "other"]),
        ("rename", ["one", "two", "three", "one_2", "two_2"], ["one", "two"]),
    ],
)
async def test_names_that_are_taken_at_registration_follow_the_strategy(
    strategy: Any, known: list[str], texts: list[str]
) -> None:
    toolkit = toolkit_of(one)
    toolkit.add_source(FakeSource("first", two))
    clashing = FakeSource("second", three, one=other, two=other)
    await toolkit.register_mcp_client(clashing, namesake_strategy=strategy)
    assert names(toolkit) == known
    assert [await said(toolkit, name) for name in ("one", "two")] == texts


@pytest.mark.parametrize("strategy", ["skip", "override", "rename"])
async def test_a_clash_that_was_dealt_with_is_not_worth_a_warning(
    strategy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    toolkit = toolkit_of(one)
    toolkit.add_source(FakeSource("first", two))
    await toolkit.register_mcp_client(FakeSource("second", one=other, two=other), namesake_strategy=strategy)
    toolkit.register_tool_function(three, func_name="two", namesake_strategy=strategy)
    names(toolkit)
    assert caplog.records == []


async def test_names_that_are_taken_are_errors_that_name_both_sides() -> None:
    toolkit = toolkit_of(one)
    toolkit.add_source(FakeSource("first", two))
    with pytest.raises(
        ToolNameError,
        match=r"^MCP server 'second' .*: 'one' \(a function\), 'two' \(MCP server 'first'\); .*`prefix`.*func_name",
    ):
        toolkit.add_source(FakeSource("second", one, two, three))
    with pytest.raises(ToolNameError, match="'two' already, of MCP server 'first'"):
        toolkit.register_tool_function(two)
    with pytest.raises(ToolNameError, match="an MCP server named 'first' already"):
        await toolkit.register_mcp_client(FakeSource("first"), namesake_strategy="rename")
    with pytest.raises(ToolNameError, match="no tool group named 'web'"):
        await toolkit.register_mcp_client(FakeSource("third"), "web")
    assert list(toolkit.sources) == ["first"]
    assert names(toolkit) == ["one", "two"]


async def test_a_function_that_overrides_a_sources_tool_keeps_its_place_when_the_source_changes() -> None:
    source, toolkit = FakeSource("s", one), Toolkit()
    toolkit.add_source(source)
    toolkit.register_tool_function(other, func_name="one", namesake_strategy="override")
    source.offer(one, two)
    assert names(toolkit) == ["two", "one"]
    assert await said(toolkit, "one") == "other"


async def test_a_tool_that_appears_under_a_taken_name_is_left_out_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    early, late = FakeSource("early"), FakeSource("late", two)
    toolkit = toolkit_of(one)
    toolkit.add_source(early)
    toolkit.add_source(late)
    early.offer(one=other, two=other, three=three)
    for _ in range(3):
        assert names(toolkit) == ["one", "three", "two"]
        early.offer(one=other, two=other, three=three)
    assert await said(toolkit, "one") == "one"
    assert await said(toolkit, "two") == "two"
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "tool 'one' of MCP server 'early' is left out" in caplog.text
    assert "one of this name already, of MCP server 'late'; a `prefix`" in caplog.text


async def test_of_two_tools_that_appear_later_the_first_to_be_seen_keeps_the_name() -> None:
    first, second, toolkit = FakeSource("first"), FakeSource("second"), Toolkit()
    toolkit.add_source(first)
    toolkit.add_source(second)
    second.offer(two)
    assert names(toolkit) == ["two"]
    first.offer(two=other)
    assert await said(toolkit, "two") == "two"
    second.offer()
    assert await said(toolkit, "two") == "other"


async def test_a_name_that_vendors_refuse_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    source, toolkit = FakeSource("s"), Toolkit()
    source.offer(**{"files/read": one, "two": two})
    toolkit.add_source(source)
    assert names(toolkit) == names(toolkit) == ["two"]
    (record,) = caplog.records
    assert "'files/read' of MCP server 's' is left out: vendors take only names of 1 to 64" in record.getMessage()


async def test_a_tool_of_a_source_can_be_removed_and_so_can_the_source() -> None:
    source, toolkit = FakeSource("s", one, two), Toolkit()
    toolkit.add_source(source)
    assert toolkit.sources == {"s": source}
    toolkit.remove_tool_function("one")
    source.offer(one, two, three)
    assert names(toolkit) == ["two", "three"]
    assert repr(toolkit.tools["two"]) == "<tool 'two' in group 'basic', MCP server 's'>"
    await toolkit.remove_mcp_clients(["s", "nobody"])
    assert (names(toolkit), dict(toolkit.sources)) == ([], {})
    toolkit.register_tool_function(one)


def test_presets_are_in_no_representation() -> None:
    toolkit = Toolkit()
    asyncio.run(toolkit.register_mcp_client(FakeSource("s", one), preset_kwargs_mapping={"one": {"key": "secret"}}))
    assert "secret" not in repr(toolkit.tools) + repr([tool.tool for tool in toolkit.tools.values()])


async def test_responses_of_a_source_are_postprocessed() -> None:
    def shout(tool_call: ToolUseBlock, response: ToolResponse) -> ToolResponse:
        return ToolResponse.of_text(text_of(response) + "!")

    toolkit = Toolkit()
    await toolkit.register_mcp_client(FakeSource("s", one), postprocess_func=shout)
    assert await said(toolkit, "one") == "one!"


async def stuck() -> AsyncIterator[str]:
    """Yield and wait."""
    yield "so far"
    await asyncio.Event().wait()


async def own_timeout() -> None:
    raise TimeoutError("my own")


async def test_a_call_that_takes_too_long_ends_with_what_it_had_and_an_error() -> None:
    toolkit = Toolkit()
    await toolkit.register_mcp_client(FakeSource("s", stuck, own_timeout, one), execution_timeout=0.01)
    assert await said(toolkit, "stuck") == "so far\nError: TimeoutError: no answer within 0.01 seconds"
    assert await refusal(toolkit, "own_timeout") == "Error: TimeoutError: my own"


async def test_the_time_that_a_reader_takes_is_not_the_tools() -> None:
    async def quick() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    toolkit = Toolkit()
    await toolkit.register_mcp_client(FakeSource("s", quick), execution_timeout=5)
    loop = asyncio.get_running_loop()
    time = loop.time
    try:
        loop.time = lambda: time() + late  # type: ignore[method-assign]
        late = 0
        async for response in toolkit.call_tool_function(
            {"type": "tool_use", "id": "1", "name": "quick", "input": {}}
        ):
            late += 10
            assert response.metadata is None
    finally:
        loop.time = time  # type: ignore[method-assign]
