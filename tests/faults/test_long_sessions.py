"""Sessions of many messages: a turn reads and writes what is new, and the event loop turns meanwhile."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from agentscope.message import Msg
from agentscope.runtime import Runtime, SessionContext, runtime
from agentscope.runtime.settings import SessionSettings, Settings
from agentscope.session import Lease, ModuleChange, Revision
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage.migrations import require_schema
from agentscope_adapters.storage.repository import SqlSessionRepository
from faults import counting
from faults.databases import Database

MESSAGES = 100_000
LONGEST_BLOCK = 1.0
"""How many seconds of this process's work the event loop may stand still at once; others use the machine, too."""


class Historian(counting.App):
    """Adds as many messages as it is told, and answers with how many there are and the digest of all of them."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Add, in pieces that let the event loop turn."""
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        size = await self.memory.size()
        stop = size + int(msg.get_text_content() or "")
        for start in range(size, stop, 200):
            added = [Msg("user", f"message {number}", "user") for number in range(start, min(start + 200, stop))]
            await self.memory.add(added)
            await asyncio.sleep(0)
        await runtime.session.save_session_state(ctx.session_id, memory=self.memory)
        messages = await self.memory.get_memory()
        yield Msg("assistant", f"{len(messages)} {await asyncio.to_thread(digest, messages)}", "assistant")


def digest(messages: Sequence[Msg]) -> str:
    """Of ids, texts and times, in order."""
    found = hashlib.sha256()
    for msg in messages:
        found.update(f"{msg.id} {msg.get_text_content()} {msg.timestamp}\n".encode())
    return found.hexdigest()


class Counting(SqlSessionRepository):
    """Counts the items that it reads and writes."""

    read = written = 0

    async def items(
        self, session_id: str, module: str, pointer: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Sequence[str]]:
        """Count what is read."""
        async for page in super().items(session_id, module, pointer, start, stop):
            self.read += len(page)
            yield page

    async def save(
        self,
        lease: Lease,
        changes: Mapping[str, ModuleChange],
        *,
        expected: Revision,
        saved_at: datetime | None = None,
        owner: str | None = None,
    ) -> Revision:
        """Count what is written."""
        self.written += sum(len(part.items) for change in changes.values() for part in change.lists.values())
        return await super().save(lease, changes, expected=expected, saved_at=saved_at, owner=owner)

    def counted(self) -> tuple[int, int]:
        """How many were read and written since this was last asked."""
        counted = self.read, self.written
        self.read = self.written = 0
        return counted


@asynccontextmanager
async def started(
    database: Database, folder: Path, app: type[counting.App]
) -> AsyncGenerator[tuple[Runtime, Counting]]:
    """A runtime on the database, as a process has it."""
    settings = SessionSettings(url=SecretStr(database.url), auto_migrate=True)
    opened = find_database(settings, folder)
    try:
        await require_schema(opened, settings.auto_migrate)
        repository = Counting(opened)
        made = Runtime(Settings(session=SessionSettings(backend="memory")), app=app)
        with made.override(session_repository=repository):
            async with made:
                yield made, repository
    finally:
        await opened.close()


async def take_turn(rt: Runtime, text: str) -> str:
    """The answer of the app."""
    answers = [msg.get_text_content() or "" async for msg in rt.invoke(text, session_id="s")]
    return answers[-1]


@asynccontextmanager
async def responsive_loop(what: str) -> AsyncGenerator[None]:
    """Fails when the event loop stood still for too long while the block ran."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.process_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.process_time() - before)

    watching = asyncio.create_task(watch())
    before = time.monotonic()
    try:
        yield
    finally:
        watching.cancel()
    print(f"\n{what}: {time.monotonic() - before:.2f} s, the loop stood still for {longest:.3f} s at most")
    assert longest < LONGEST_BLOCK


async def test_a_session_of_a_hundred_thousand_messages(database: Database, tmp_path: Path) -> None:
    async with started(database, tmp_path, Historian) as (rt, repository):
        async with responsive_loop("saved"):
            first = await take_turn(rt, str(MESSAGES))
        assert first.startswith(f"{MESSAGES} ")
        assert repository.counted() == (0, MESSAGES)
        async with responsive_loop("one more"):
            assert (await take_turn(rt, "1")).startswith(f"{MESSAGES + 1} ")
        assert repository.counted() == (0, 1)
        stored = await take_turn(rt, "0")
        assert repository.counted() == (0, 0)
    async with started(database, tmp_path, Historian) as (rt, repository):
        async with responsive_loop("loaded"):
            assert await take_turn(rt, "0") == stored
        assert repository.counted() == (MESSAGES + 1, 0)
        async with responsive_loop("one more after the load"):
            assert (await take_turn(rt, "1")).startswith(f"{MESSAGES + 2} ")
        assert repository.counted() == (0, 1)


@pytest.mark.parametrize("turns", [200])
async def test_replicas_that_take_turns_read_only_what_the_other_added(
    database: Database, tmp_path: Path, turns: int
) -> None:
    async with (
        started(database, tmp_path, counting.App) as first,
        started(database, tmp_path, counting.App) as second,
    ):
        for number in range(turns):
            rt, repository = (first, second)[number % 2]
            assert await take_turn(rt, str(number)) == str(number + 1)
            assert repository.counted() == (min(number, 1), 1)
