"""Who is let in, and what is left of who is not."""

import asyncio

import pytest

from agentscope.errors import InvocationCancelledError, SessionBusyError
from agentscope.runtime._admission import Admission
from serving import settings


async def test_one_that_is_stopped_in_the_turn_of_its_slot_does_not_run_and_gives_it_back() -> None:
    admission = Admission(settings(server={"max_concurrent_invocations": 1}))
    running = await admission.enter("a", nested=False)
    waiting = asyncio.create_task(admission.enter("b", nested=False))
    for _ in range(3):
        await asyncio.sleep(0)
    admission.leave(running, nested=False)
    assert admission.stop("b", InvocationCancelledError("another took its place"))
    with pytest.raises(InvocationCancelledError, match="another took its place"):
        await waiting
    async with asyncio.timeout(1):
        for session in ("c", "b"):
            admission.leave(await admission.enter(session, nested=False), nested=False)


async def test_who_is_refused_for_its_session_needs_no_waiting_place_to_be_told() -> None:
    strict = settings(session={"backend": "memory", "on_conflict": "reject"}, server={"max_queued": 0})
    admission = Admission(strict)
    running = await admission.enter("a", nested=False)
    with pytest.raises(SessionBusyError):
        await admission.enter("a", nested=False)
    admission.leave(running, nested=False)
