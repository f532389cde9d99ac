"""The conversation of a stored session: which of what is stored is a message, and pages that are never torn."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.session import (
    ConversationMovedError,
    ConversationPage,
    InMemorySessionRepository,
    Place,
    SessionReader,
    SessionRepository,
    read_conversation,
)
from stored import added, entry, memory_of, plain, said, store, tracked

MIB = 1024 * 1024


@pytest.fixture
def repository() -> InMemorySessionRepository:
    return InMemorySessionRepository()


async def page_of(
    repository: SessionRepository, after: Place | None = None, *, limit: int = 1000, max_bytes: int = 8 * MIB
) -> ConversationPage:
    page = await read_conversation(repository, "s", after=after, limit=limit, max_bytes=max_bytes)
    assert page is not None
    return page


async def texts(repository: SessionRepository) -> list[Any]:
    page = await page_of(repository)
    assert page.next is None
    return [msg.content for msg in page.messages]


async def test_a_session_that_does_not_exist_has_none(repository: InMemorySessionRepository) -> None:
    assert await read_conversation(repository, "s", limit=1, max_bytes=1) is None


async def test_the_messages_of_a_memory_come_as_they_were_without_marks_and_summary(
    repository: InMemorySessionRepository,
) -> None:
    memory = InMemoryMemory()
    block = Msg("Friday", [{"type": "text", "text": "ü"}], "assistant", {"tokens": 3})
    await memory.add([said("hello"), block], marks="hint")
    await memory.update_compressed_summary("what was before")
    kept = [msg for msg, _ in memory.content]
    await store(repository, "s", memory=memory_of(*kept))
    page = await page_of(repository)
    assert [msg.to_dict() for msg in page.messages] == [msg.to_dict() for msg in kept]


@pytest.mark.parametrize("form", ["pairs", "messages alone"])
@pytest.mark.parametrize("path", ["", "agent.memory", "team.0.memory", "a/b.m~n"])
async def test_a_memory_is_found_in_the_head_that_an_older_version_saved(
    repository: InMemorySessionRepository, form: str, path: str
) -> None:
    messages = [said("one"), said("two")]
    content = [msg.to_dict() if form == "messages alone" else entry(msg) for msg in messages]
    state: Any = {"_compressed_summary": "x", "content": content}
    for key in reversed(path.split(".") if path else []):
        state = [state] if key == "0" else {"name": "Friday", key: state}
    await store(repository, "s", agent=plain(state))
    assert await texts(repository) == ["one", "two"]
    first = await page_of(repository, limit=1)
    assert [msg.content for msg in (await page_of(repository, first.next)).messages] == ["two"]


async def test_memories_are_told_module_by_module_and_pointer_by_pointer_each_with_all_it_holds(
    repository: InMemorySessionRepository,
) -> None:
    shared = said("to both")
    await store(
        repository,
        "s",
        planner=memory_of(shared, said("plan"), at="/memory/content"),
        executor=memory_of(shared, said("do"), at="/memory/content"),
        alone=plain({"b": {"content": [said("b").to_dict()]}, "a": {"content": [said("a").to_dict()]}}),
        toolkit=plain({"active_groups": []}),
    )
    assert await texts(repository) == ["a", "b", "to both", "do", "to both", "plan"]


def changed(**fields: object) -> dict[str, object]:
    return {**said("x").to_dict(), **fields}


NO_MESSAGES: dict[str, Sequence[object]] = {
    "numbers": [1, 2],
    "texts": ["user", "hello"],
    "blocks": [{"type": "text", "text": "hello"}],
    "no id": [changed(id=None)],
    "an id that is no text": [changed(id=7)],
    "no time": [{key: value for key, value in said("x").to_dict().items() if key != "timestamp"}],
    "another role": [changed(role="robot")],
    "a role that is no text": [changed(role=[])],
    "no name": [changed(name=None)],
    "content that is an object": [changed(content={"type": "text"})],
    "content without blocks": [changed(content=[1])],
    "metadata that is a list": [changed(metadata=[])],
    "a triple": [[*entry(said("x")), "more"]],
    "a pair without marks": [[said("x").to_dict(), None]],
    "two messages": [[said("x").to_dict(), said("y").to_dict()]],
    "an empty list": [[]],
    "nothing": [],
}


@pytest.mark.parametrize("items", NO_MESSAGES.values(), ids=NO_MESSAGES)
@pytest.mark.parametrize("form", ["tracked", "plain"])
async def test_an_apps_own_content_that_holds_no_messages_is_not_shown(
    repository: InMemorySessionRepository, items: Sequence[object], form: str
) -> None:
    article = tracked(items) if form == "tracked" else plain({"content": items})
    await store(repository, "s", article=article, memory=memory_of(said("hello")))
    assert await texts(repository) == ["hello"]


async def test_what_is_no_message_inside_a_memory_is_left_out(repository: InMemorySessionRepository) -> None:
    await store(repository, "s", memory=tracked([entry(said("one")), {"tick": 1}, said("two").to_dict()]))
    assert await texts(repository) == ["one", "two"]


async def test_what_a_message_holds_is_its_own(repository: InMemorySessionRepository) -> None:
    quoted = {"content": [said("quoted").to_dict()]}
    last = changed(metadata={"quotes": quoted})
    await store(repository, "s", app=plain({"last": last, "pairs": [[last, ["mark"]]], "note": {"content": "text"}}))
    assert await texts(repository) == []


async def test_other_tracked_lists_are_not_read(repository: InMemorySessionRepository) -> None:
    await store(repository, "s", log=memory_of(said("x"), at="/events"), discontent=memory_of(at="/discontent"))
    assert await texts(repository) == []


class Counting(InMemorySessionRepository):
    """Counts the rows that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.between: Any = None

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[SessionReader]:
        async with super().snapshot() as reader:
            real, here = reader.items, self

            async def items(
                session_id: str, module: str, pointer: str, start: int = 0, stop: int | None = None
            ) -> AsyncIterator[Sequence[str]]:
                async for page in real(session_id, module, pointer, start, stop):
                    here.rows += len(page)
                    if here.between is not None:
                        await here.between()
                    yield page

            reader.items = items  # type: ignore[method-assign]
            yield reader


async def test_twenty_thousand_messages_come_in_pages_that_read_no_more_rows_than_they_show() -> None:
    repository = Counting()
    messages = [said(f"m{number}", f"id{number}") for number in range(20_000)]
    await store(repository, "s", memory=memory_of(*messages))
    seen: list[object] = []
    page = await page_of(repository, limit=1500)
    pages = 1
    seen += [msg.content for msg in page.messages]
    while page.next is not None:
        page = await page_of(repository, page.next, limit=1500)
        pages += 1
        seen += [msg.content for msg in page.messages]
    assert pages == 14
    assert seen == [msg.content for msg in messages]
    # The one before, which tells whether the list is the same, and the one after, which tells whether there is more.
    assert repository.rows <= 20_000 + 2 * pages


async def test_a_page_ends_before_it_grows_too_large_but_has_one_message(
    repository: InMemorySessionRepository,
) -> None:
    await store(repository, "s", memory=memory_of(*(said("ü" * MIB) for _ in range(3))))
    page = await page_of(repository, max_bytes=5 * MIB)
    assert len(page.messages) == 2
    page = await page_of(repository, page.next, max_bytes=5 * MIB)
    assert (len(page.messages), page.next) == (1, None)
    page = await page_of(repository, max_bytes=1)
    assert len(page.messages) == 1
    assert page.next is not None


async def test_pages_end_where_the_memories_end(repository: InMemorySessionRepository) -> None:
    await store(repository, "s", a=memory_of(said("1"), said("2")), b=memory_of(), c=memory_of(said("3"), said("4")))
    first = await page_of(repository, limit=2)
    second = await page_of(repository, first.next, limit=2)
    assert [msg.content for msg in (*first.messages, *second.messages)] == ["1", "2", "3", "4"]
    assert second.next is None


async def test_what_is_added_between_two_pages_is_in_the_second(repository: InMemorySessionRepository) -> None:
    await store(repository, "s", memory=memory_of(said("1"), said("2")))
    first = await page_of(repository, limit=1)
    await store(repository, "s", memory=added(2, said("3")))
    second = await page_of(repository, first.next)
    assert [msg.content for msg in second.messages] == ["2", "3"]


async def test_other_marks_move_no_message(repository: InMemorySessionRepository) -> None:
    messages = [said("1"), said("2")]
    await store(repository, "s", memory=memory_of(*messages))
    first = await page_of(repository, limit=1)
    await store(repository, "s", memory=tracked([entry(msg) for msg in messages]))
    assert [msg.content for msg in (await page_of(repository, first.next)).messages] == ["2"]


@pytest.mark.parametrize(
    "rewritten",
    [
        {"memory": memory_of(said("a summary"), said("2"), said("3"))},
        {"memory": memory_of()},
        {"memory": plain({})},
        {"memory": plain({}), "other": memory_of(said("1"))},
    ],
    ids=["rewritten", "cleared", "gone", "in another module"],
)
async def test_a_conversation_that_was_rewritten_between_two_pages_is_not_continued(
    repository: InMemorySessionRepository, rewritten: dict[str, Any]
) -> None:
    await store(repository, "s", memory=memory_of(said("1"), said("2"), said("3")))
    first = await page_of(repository, limit=2)
    await store(repository, "s", **rewritten)
    with pytest.raises(ConversationMovedError):
        await page_of(repository, first.next)


async def test_a_save_while_a_page_is_read_does_not_tear_it() -> None:
    repository = Counting()
    await store(repository, "s", a=memory_of(*(said("old") for _ in range(1500))), b=memory_of(said("old")))

    async def save() -> None:
        await store(repository, "s", a=memory_of(said("new")), b=memory_of(said("new")))

    repository.between = save
    page = await page_of(repository, limit=10_000)
    assert [msg.content for msg in page.messages] == ["old"] * 1501


async def test_a_long_page_lets_others_run(repository: InMemorySessionRepository) -> None:
    await store(repository, "s", memory=plain({"content": [said("x" * 100).to_dict() for _ in range(10_000)]}))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    page = await page_of(repository, limit=10_000)
    task.cancel()
    assert len(page.messages) == 10_000
    assert turns >= 3
