"""One toolkit serves all sessions: what one of them changes, no other sees."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentscope.errors import OutsideInvocationError
from agentscope.runtime import SessionContext
from agentscope.tool import Handler, Toolkit, ToolResponse
from tool.workbench import FakeSource, bench, inside, names, refusal, said, text_of, toolkit_in


def search() -> str:
    """Search."""
    return "found"


async def hand_on(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
    """A middleware that changes nothing."""
    async for response in await next_handler(**kwargs):
        yield response


async def nothing(toolkit: Toolkit, ctx: SessionContext) -> None:
    """Only look."""
    toolkit.get_json_schemas()


def cells(toolkit: Toolkit) -> int:
    """In how many sessions the toolkit has a state of its own."""
    return len(vars(toolkit)["_session_state"].cells)


async def test_which_groups_are_active_belongs_to_the_session() -> None:
    async def activate(toolkit: Toolkit, ctx: SessionContext) -> dict[str, Any]:
        toolkit.register_tool_function(toolkit.reset_equipped_tools)
        await said(toolkit, "reset_equipped_tools", web=True)
        return toolkit.state_dict()

    async def look(toolkit: Toolkit, ctx: SessionContext) -> tuple[dict[str, Any], list[str]]:
        return toolkit.state_dict(), names(toolkit)

    async with bench() as rt:
        assert await inside(rt, "a", activate) == {"active_groups": ["web"]}
        assert await inside(rt, "a", look) == ({"active_groups": ["web"]}, ["reset_equipped_tools"])
        assert await inside(rt, "b", look) == ({"active_groups": []}, [])
        assert toolkit_in(rt).state_dict() == {"active_groups": []}


async def test_what_sessions_register_at_the_same_time_stays_with_each() -> None:
    async with bench() as rt:
        together = asyncio.Barrier(3)

        async def work(toolkit: Toolkit, ctx: SessionContext) -> tuple[list[str], list[str]]:
            user = ctx.session_id

            async def mark(kwargs: dict[str, Any], next_handler: Handler) -> AsyncIterator[ToolResponse]:
                async for response in await next_handler(**kwargs):
                    yield ToolResponse.of_text(f"{text_of(response)} for {user}")

            def account(key: str) -> str:
                return key

            toolkit.create_tool_group(f"group-{user}", "Mine", active=True)
            toolkit.register_tool_function(account, f"group-{user}", {"key": f"key of {user}"})
            toolkit.register_tool_function(search, func_name=f"only_{user}")
            toolkit.add_source(FakeSource("own", **{f"source_{user}": search}))
            toolkit.register_middleware(mark)
            await together.wait()
            answers = [await said(toolkit, name) for name in ("account", f"only_{user}", f"source_{user}")]
            await together.wait()
            answers.append(" ".join(names(toolkit)))
            return answers, list(toolkit.groups)

        results = await asyncio.gather(*(inside(rt, user, work) for user in "abc"))
        for user, (answers, groups) in zip("abc", results, strict=True):
            assert answers == [
                f"key of {user} for {user}",
                f"found for {user}",
                f"found for {user}",
                f"account only_{user} source_{user}",
            ]
            assert groups == ["web", f"group-{user}"]
        toolkit = toolkit_in(rt)
        assert (names(toolkit), list(toolkit.groups), dict(toolkit.sources)) == ([], ["web"], {})


async def test_what_is_registered_stays_for_the_next_turn_of_the_session_and_is_not_saved() -> None:
    async def register(toolkit: Toolkit, ctx: SessionContext) -> dict[str, Any]:
        toolkit.register_tool_function(search)
        toolkit.create_tool_group("mine", "Mine", active=True)
        return toolkit.state_dict()

    async def look(toolkit: Toolkit, ctx: SessionContext) -> list[str]:
        return names(toolkit)

    async def load(toolkit: Toolkit, ctx: SessionContext) -> list[str]:
        toolkit.load_state_dict({"active_groups": ["mine", "web"]})
        return [*toolkit.state_dict()["active_groups"], *names(toolkit)]

    async with bench() as rt:
        assert await inside(rt, "a", register) == {"active_groups": ["mine"]}
        assert await inside(rt, "a", look) == ["search"]
        assert await inside(rt, "b", load) == ["web"]


async def test_what_an_invocation_that_fails_has_registered_is_gone() -> None:
    async def register_and_fail(toolkit: Toolkit, ctx: SessionContext) -> None:
        toolkit.register_tool_function(search)
        toolkit.remove_tool_groups("web")
        raise ValueError("no")

    async def look(toolkit: Toolkit, ctx: SessionContext) -> tuple[list[str], list[str]]:
        return names(toolkit), list(toolkit.groups)

    async with bench() as rt:
        with pytest.raises(ValueError, match="no"):
            await inside(rt, "a", register_and_fail)
        assert await inside(rt, "a", look) == ([], ["web"])


async def test_a_session_that_changes_nothing_takes_no_room() -> None:
    async def use(toolkit: Toolkit, ctx: SessionContext) -> None:
        toolkit.get_json_schemas()
        toolkit.load_state_dict(toolkit.state_dict())
        await refusal(toolkit, "search")

    async with bench() as rt:
        for session in "abc":
            await inside(rt, session, use)
        assert cells(toolkit_in(rt)) == 0


CHANGES: list[Callable[[Toolkit], object]] = [
    lambda toolkit: toolkit.update_tool_groups(["web"], True),
    lambda toolkit: toolkit.create_tool_group("x", "X"),
    lambda toolkit: toolkit.remove_tool_groups(["web"]),
    lambda toolkit: toolkit.register_tool_function(search),
    lambda toolkit: toolkit.add_source(FakeSource("s")),
    lambda toolkit: toolkit.register_middleware(hand_on),
    lambda toolkit: toolkit.clear(),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_outside_any_invocation_a_toolkit_that_serves_can_be_read_but_not_changed(change: Any) -> None:
    async with bench() as rt:
        await inside(rt, "a", nothing)
        with pytest.raises(OutsideInvocationError):
            change(toolkit_in(rt))
        assert await refusal(toolkit_in(rt), "search") == "Error: there is no tool named 'search'"


async def test_a_source_that_changes_is_followed_in_every_session() -> None:
    source = FakeSource("s")

    async def add(toolkit: Toolkit, ctx: SessionContext) -> None:
        toolkit.add_source(source)

    async def look(toolkit: Toolkit, ctx: SessionContext) -> list[str]:
        toolkit.register_tool_function(search, func_name=f"only_{ctx.session_id}", namesake_strategy="skip")
        return names(toolkit)

    async with bench() as rt:
        await inside(rt, "a", add)
        await inside(rt, "b", add)
        assert await inside(rt, "a", look) == ["only_a"]
        source.offer(search)
        assert await inside(rt, "a", look) == ["search", "only_a"]
        assert await inside(rt, "b", look) == ["search", "only_b"]
