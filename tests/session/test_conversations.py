"""Edit, append, compact, save, load, fail, evict, delete: in any order, on two replicas, against a plain model."""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from agentscope.runtime.settings import SessionSettings
from agentscope.session import InMemorySessionRepository, SessionRepository
from agentscope_adapters.storage.repository import open_repository
from session.conversations import Sessions


async def open_in_memory(stack: AsyncExitStack) -> SessionRepository:
    return InMemorySessionRepository()


async def open_sqlite(stack: AsyncExitStack) -> SessionRepository:
    folder = Path(mkdtemp(prefix="agentscope-test-"))
    stack.callback(rmtree, folder)
    return await stack.enter_async_context(open_repository(SessionSettings(durability="normal"), folder))


@pytest.mark.parametrize(
    ("open_it", "examples"),
    [pytest.param(open_in_memory, 80, id="in memory"), pytest.param(open_sqlite, 25, id="SQLite")],
)
def test_whatever_happens_in_whatever_order_sessions_hold_what_was_saved(
    open_it: Callable[[AsyncExitStack], Coroutine[Any, Any, SessionRepository]], examples: int
) -> None:
    class Machine(Sessions):
        async def open_repository(self, stack: AsyncExitStack) -> SessionRepository:
            return await open_it(stack)

    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
