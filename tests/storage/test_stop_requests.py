"""What every store keeps to about requests to end an invocation: the in-memory one, SQLite and Postgres."""

import asyncio

from agentscope.session import InvocationStore, StopRequest


def request(request_id: str = "r", session_id: str = "s") -> StopRequest:
    return StopRequest(request_id, session_id, "cancelled")


async def test_a_request_is_seen_by_all_until_it_is_answered(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    cancel = StopRequest("one", "séance", "cancelled", "ada")
    replace = StopRequest("two", "s", "replaced")
    assert await others.stop_requests() == []
    await invocations.request_stop(cancel, 50)
    await invocations.request_stop(replace, 60)
    # Its first outcome may have been lost.
    await invocations.request_stop(cancel, 60)

    assert list(await others.stop_requests()) == [cancel, replace]
    assert not await invocations.is_stop_answered("one")
    await others.answer_stop("one")

    assert list(await others.stop_requests()) == [replace]
    assert await invocations.is_stop_answered("one")
    assert not await invocations.is_stop_answered("two")


async def test_who_withdraws_a_request_learns_whether_it_was_answered(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    for request_id in ("answered", "not answered"):
        await invocations.request_stop(request(request_id), 60)
    await others.answer_stop("answered")

    assert await invocations.withdraw_stop("answered") is True
    assert await invocations.withdraw_stop("not answered") is False

    assert await others.stop_requests() == []
    assert await invocations.withdraw_stop("answered") is False
    assert not await invocations.is_stop_answered("answered")
    # The answer comes too late, and does no harm.
    await others.answer_stop("not answered")
    assert not await invocations.is_stop_answered("not answered")


async def test_a_request_whose_time_is_over_is_nobodys_and_goes_with_another(invocations: InvocationStore) -> None:
    await invocations.request_stop(request("over"), 0)
    await invocations.request_stop(request("kept"), 60)
    await invocations.answer_stop("over")

    assert await invocations.stop_requests() == [request("kept")]
    assert await invocations.is_stop_answered("over")
    await invocations.withdraw_stop("another")

    assert not await invocations.is_stop_answered("over")
    assert await invocations.stop_requests() == [request("kept")]


async def test_who_looks_for_requests_and_who_waits_for_an_answer_find_them(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    async def answer() -> StopRequest:
        with others.watch_stops() as pause:
            while not (found := await others.stop_requests()):
                await pause(0)
        await others.answer_stop(found[0].request_id)
        return found[0]

    answering = asyncio.create_task(answer())
    async with asyncio.timeout(20):
        with invocations.watch_stops("r") as pause:
            await invocations.request_stop(request(), 60)
            while not await invocations.is_stop_answered("r"):
                await pause(0)
        assert await answering == request()


async def test_pauses_end_by_themselves(invocations: InvocationStore) -> None:
    async with asyncio.timeout(20):
        for request_id in (None, "r"):
            with invocations.watch_stops(request_id) as pause:
                await pause(1_000_000)
