"""Processes that write, read, renew and delete what is kept of invocations, all at once."""

import asyncio
import random

from agentscope.session import InvocationRecord, InvocationStore, LineBatch, LinePage
from storage.helpers import begin


async def test_of_many_who_open_one_key_one_does(invocations: InvocationStore, others: InvocationStore) -> None:
    for attempt in range(3):
        records = [InvocationRecord(f"{attempt} {number}", "s", None, f"key {attempt}") for number in range(20)]

        found = await asyncio.gather(
            *(
                store.open_invocation(record, 60, 60)
                for store, record in zip([invocations, others] * 10, records, strict=True)
            )
        )

        [opened] = [record for record, known in zip(records, found, strict=True) if known is None]
        assert [known for known in found if known is not None] == [opened] * 19
        assert [record for record in records if await others.find_invocation(record.invocation_id)] == [opened]


async def follow(store: InvocationStore, invocation_id: str) -> list[LinePage]:
    """The pages of an invocation, from its begin to its end."""
    pages: list[LinePage] = []
    after = 0
    with store.watch_invocation(invocation_id) as pause:
        while True:
            page = await store.read_lines(invocation_id, after)
            assert page is not None
            pages.append(page)
            after += len(page.lines)
            if page.state != "running":
                return pages
            if not page.lines:
                await pause(0)


async def test_followers_see_every_line_once_while_it_is_written(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    chance = random.Random(5)
    names = [f"i{number}" for number in range(4)]
    wanted = {name: [f"{name} {number}" for number in range(chance.randint(1, 120))] for name in names}
    for name in names:
        await begin(invocations, name)

    async def write() -> None:
        written = dict.fromkeys(names, 0)
        while left := [name for name in names if written[name] < len(wanted[name])]:
            batches: list[LineBatch] = []
            for name in chance.sample(left, chance.randint(1, len(left))):
                start = written[name]
                end = min(start + chance.randint(1, 9), len(wanted[name]))
                batches.append(LineBatch(name, start + 1, wanted[name][start:end], end == len(wanted[name])))
            await invocations.append_lines(batches, 60)
            if chance.random() < 0.2:
                # Its outcome was lost.
                await invocations.append_lines(batches, 60)
            for batch in batches:
                written[batch.invocation_id] += len(batch.lines)

    async with asyncio.timeout(60):
        writing = asyncio.create_task(write())
        followed = await asyncio.gather(*(follow(store, name) for store in (invocations, others) for name in names))
        await writing

    for name, pages in zip(names * 2, followed, strict=True):
        assert [line for page in pages for line in page.lines] == wanted[name]
        assert {page.state for page in pages[:-1]} <= {"running"}
        assert pages[-1].state == "ended"


async def test_all_at_once_nobody_waits_in_a_circle_and_nothing_is_left(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    chance = random.Random(7)
    names = [f"i{number}" for number in range(12)]

    async def work(store: InvocationStore, number: int) -> None:
        for _ in range(15):
            some = chance.sample(names, 6)
            kind = number % 4
            if kind == 0:
                for name in some[:2]:
                    await store.open_invocation(InvocationRecord(name, "s"), chance.choice([0, 60]), 0)
            elif kind == 1:
                await store.append_lines([LineBatch(name, 1, [name], chance.random() < 0.3) for name in some], 60)
            elif kind == 2:
                await store.renew_invocations(some, 60)
            else:
                await store.forget_invocations(some[:3])
                await store.prune_invocations(2)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(store, number) for number in range(4) for store in (invocations, others)))

    await invocations.forget_invocations(names)
    for name in names:
        await begin(others, name)
        # No line of another that had its id was left.
        assert await others.read_lines(name, 0) == LinePage([], "running")
