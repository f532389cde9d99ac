"""``session.ttl``: sessions that nobody has used for that long are deleted in the background."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from agentscope.errors import SessionStoreError
from agentscope.runtime import SessionContext
from agentscope.session import InMemorySessionRepository
from session.replicas import replicas


class Watched(InMemorySessionRepository):
    """Tells of each time that it is asked to prune."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.limits: list[int] = []
        self.empty = asyncio.Event()

    async def prune(self, before: datetime, *, limit: int = 100) -> int:
        """Fail as often as it is to, then do it."""
        if self.failures:
            self.failures -= 1
            raise SessionStoreError("the database is away")
        self.limits.append(limit)
        pruned = await super().prune(before, limit=limit)
        if self.limits and not self._sessions:
            self.empty.set()
        return pruned


async def test_idle_sessions_are_deleted_a_few_at_a_time() -> None:
    store = Watched()
    async with replicas(store, 1) as [replica]:
        for number in range(250):
            await replica.turn("hi", session_id=f"s{number}")
    store.limits.clear()
    store.empty.clear()
    async with replicas(store, 1, ttl=0.2) as [replica]:
        await asyncio.wait_for(store.empty.wait(), 20)
        assert len([limit for limit in store.limits if limit == 100]) >= 3
        assert await replica.turn("hello", session_id="s1") == ["hello"]


async def test_a_session_that_is_used_stays(caplog: pytest.LogCaptureFixture) -> None:
    store = Watched()
    async with replicas(store, 1, ttl=0.2) as [replica]:
        await replica.turn("first")

        async def work(ctx: SessionContext) -> Any:
            memory = replica.desk.memory
            await replica.runtime.session.load_session_state("s", memory=memory)
            await replica.turn("idle", session_id="other")
            while await store.load("other") is not None:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)
            await replica.runtime.session.save_session_state("s", memory=memory)
            return [msg.content for msg in await memory.get_memory()]

        assert await asyncio.wait_for(replica.inside(work), 20) == ["first"]


async def test_a_store_that_fails_is_tried_again_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    store = Watched(failures=2)
    async with replicas(store, 1, ttl=0.2) as [replica]:
        await replica.turn("first")
        store.empty.clear()
        await asyncio.wait_for(store.empty.wait(), 20)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["idle sessions were not deleted: the database is away"] * 2
