"""What every store keeps to with leases: the in-memory one, SQLite and Postgres."""

import asyncio
import time

import pytest

from agentscope.session import NEVER_SAVED, Claim, Lease, SessionRepository
from storage.helpers import put, save, take

ONE, TWO, THREE = (Claim("s", owner) for owner in ("one", "two", "three"))


async def expire(repository: SessionRepository, claim: Claim) -> None:
    """Let a lease run out now."""
    assert list(await repository.renew_leases([claim], 0)) == [claim]


async def waited_for(repository: SessionRepository, claim: Claim) -> Lease:
    """The lease, as soon as it can be had."""
    async with asyncio.timeout(20):
        with repository.watch(claim.session_id) as pause:
            attempt = 0
            while (lease := await repository.take_lease(claim, 60, waits=True)) is None:
                await pause(attempt)
                attempt += 1
    return lease


async def test_a_lease_is_one_claims_alone(repository: SessionRepository, other: SessionRepository) -> None:
    lease = await repository.take_lease(ONE, 60, waits=False)

    assert lease is not None
    assert (lease.claim, lease.session_id, lease.revision) == (ONE, "s", NEVER_SAVED)
    assert await repository.take_lease(TWO, 60, waits=False) is None
    assert await other.take_lease(TWO, 60, waits=True) is None
    assert await other.take_lease(Claim("another session", "two"), 60, waits=False) is not None


async def test_of_many_who_want_a_lease_one_gets_it(repository: SessionRepository, other: SessionRepository) -> None:
    stores = [repository, other]
    leases = await asyncio.gather(
        *(stores[number % 2].take_lease(Claim("s", str(number)), 60, waits=number % 3 == 0) for number in range(32))
    )

    assert sum(lease is not None for lease in leases) == 1


async def test_a_lease_knows_what_is_stored_when_it_is_taken(repository: SessionRepository) -> None:
    revision = await save(repository, plan=put())

    assert (await take(repository)).revision == revision


async def test_who_takes_a_lease_over_sees_what_the_former_holder_saved(
    repository: SessionRepository, other: SessionRepository
) -> None:
    stores, leases = [repository, other], list[Lease]()

    async def turns(number: int) -> None:
        for turn in range(5):
            lease = await waited_for(stores[number % 2], Claim("s", f"{number} {turn}"))
            leases.append(lease)
            await stores[number % 2].save(lease, {"plan": put(str(number))}, expected=lease.revision)
            await stores[number % 2].release_leases([lease.claim])

    await asyncio.gather(*(turns(number) for number in range(4)))

    assert [lease.revision.version for lease in leases] == list(range(20))
    fences = [lease.fence for lease in leases]
    assert fences == sorted(set(fences))
    assert [lease.revision.fence for lease in leases] == [0, *fences[:-1]]


async def test_fences_grow_whatever_happens_in_between(repository: SessionRepository) -> None:
    fences = [(await take(repository)).fence]
    fences.append((await take(repository)).fence)
    await repository.release_leases([ONE])
    fences.append((await take(repository, owner="two")).fence)
    await expire(repository, TWO)
    fences.append((await take(repository)).fence)
    await repository.take_lease(TWO, 60, waits=True)
    await repository.release_leases([ONE])
    lease = await take(repository, owner="two")
    fences.append(lease.fence)
    await repository.save(lease, {}, expected=NEVER_SAVED)
    await repository.delete(lease)
    await repository.release_leases([TWO])
    fences.append((await take(repository)).fence)

    assert fences == sorted(set(fences))


async def test_a_claim_that_has_the_lease_may_take_it_once_more(repository: SessionRepository) -> None:
    first = await take(repository)
    second = await repository.take_lease(ONE, 0, waits=False)

    assert second is not None
    assert second.fence > first.fence
    # It is the later time that counts.
    assert await repository.take_lease(TWO, 60, waits=False) is not None


async def test_an_expired_lease_is_anyones(repository: SessionRepository) -> None:
    lease = await take(repository)
    await expire(repository, ONE)

    later = await repository.take_lease(TWO, 60, waits=False)

    assert later is not None
    assert later.fence > lease.fence
    assert await repository.take_lease(ONE, 60, waits=False) is None


async def test_a_lease_expires_by_itself(repository: SessionRepository) -> None:
    begun = time.monotonic()
    await take(repository, ttl=0.3)

    await waited_for(repository, TWO)

    assert 0.25 < time.monotonic() - begun < 15


async def test_a_renewed_lease_lasts_longer(repository: SessionRepository) -> None:
    await take(repository, ttl=0.3)
    begun = time.monotonic()
    assert list(await repository.renew_leases([ONE], 1)) == [ONE]

    await waited_for(repository, TWO)

    assert time.monotonic() - begun > 0.9


async def test_many_leases_are_renewed_at_once_and_those_that_are_lost_are_left_out(
    repository: SessionRepository,
) -> None:
    claims = [Claim(f"s{number}", str(number)) for number in range(700)]
    for claim in claims:
        await take(repository, claim.session_id, claim.owner)
    await repository.release_leases(claims[:5])
    await repository.renew_leases(claims[5:10], 0)
    await take(repository, claims[5].session_id, "another")
    await repository.take_lease(Claim(claims[10].session_id, "waiting"), 60, waits=True)

    assert set(await repository.renew_leases(claims, 60)) == set(claims[10:])
    assert list(await repository.renew_leases([], 60)) == []
    for claim in claims[6:10]:
        # Still free: they were not renewed all the same.
        await take(repository, claim.session_id, "later")


async def test_a_released_lease_is_anyones(repository: SessionRepository) -> None:
    await take(repository)
    await repository.release_leases([ONE])

    assert await repository.take_lease(TWO, 60, waits=False) is not None
    assert list(await repository.renew_leases([ONE], 60)) == []


async def test_a_released_lease_goes_to_the_claim_that_waits(repository: SessionRepository) -> None:
    await take(repository)
    assert await repository.take_lease(TWO, 60, waits=True) is None
    assert await repository.take_lease(TWO, 60, waits=True) is None
    assert await repository.take_lease(THREE, 60, waits=True) is None

    await repository.release_leases([ONE])

    assert await repository.take_lease(ONE, 60, waits=False) is None
    assert await repository.take_lease(THREE, 60, waits=True) is None
    assert await repository.take_lease(TWO, 60, waits=False) is not None
    await repository.release_leases([TWO])
    assert await repository.take_lease(ONE, 60, waits=False) is None
    assert await repository.take_lease(THREE, 60, waits=False) is not None


async def test_a_claim_that_does_not_wait_gets_no_place(repository: SessionRepository) -> None:
    await take(repository)
    assert await repository.take_lease(TWO, 60, waits=False) is None

    await repository.release_leases([ONE])

    assert await repository.take_lease(THREE, 60, waits=False) is not None


async def test_a_claim_has_two_seconds_to_take_a_lease_that_it_was_given(repository: SessionRepository) -> None:
    await take(repository)
    await repository.take_lease(TWO, 60, waits=True)
    begun = time.monotonic()
    await repository.release_leases([ONE])

    await waited_for(repository, THREE)

    assert 1.8 < time.monotonic() - begun < 15


async def test_a_claim_that_gives_up_its_place_is_not_the_next(repository: SessionRepository) -> None:
    await take(repository)
    await repository.take_lease(TWO, 60, waits=True)
    await repository.release_leases([TWO])
    await repository.release_leases([ONE])

    assert await repository.take_lease(THREE, 60, waits=False) is not None


@pytest.mark.parametrize("claims", [[ONE, TWO], [TWO, ONE]], ids=["the holder first", "the waiting one first"])
async def test_a_holder_and_who_waits_for_it_may_leave_together(
    repository: SessionRepository, claims: list[Claim]
) -> None:
    await take(repository)
    await repository.take_lease(TWO, 60, waits=True)

    await repository.release_leases(claims)

    assert await repository.take_lease(THREE, 60, waits=False) is not None


async def test_a_claim_that_was_given_a_lease_can_pass_it_on_untaken(repository: SessionRepository) -> None:
    await take(repository)
    await repository.take_lease(TWO, 60, waits=True)
    await repository.release_leases([ONE])
    await repository.take_lease(THREE, 60, waits=True)
    await repository.release_leases([TWO])

    assert await repository.take_lease(TWO, 60, waits=False) is None
    assert await repository.take_lease(THREE, 60, waits=False) is not None


async def test_a_place_outlasts_that_the_holder_takes_its_lease_once_more(repository: SessionRepository) -> None:
    await take(repository)
    await repository.take_lease(TWO, 60, waits=True)
    await take(repository)

    await repository.release_leases([ONE])

    assert await repository.take_lease(THREE, 60, waits=False) is None
    assert await repository.take_lease(TWO, 60, waits=False) is not None


async def test_releasing_what_is_not_there_or_anothers_does_nothing(repository: SessionRepository) -> None:
    lease = await take(repository)
    await repository.take_lease(TWO, 60, waits=True)

    await repository.release_leases([])
    await repository.release_leases([Claim("s", "stranger"), Claim("nowhere", "nobody"), THREE])

    assert list(await repository.renew_leases([ONE], 60)) == [ONE]
    await repository.save(lease, {}, expected=NEVER_SAVED)
    await repository.release_leases([ONE])
    assert await repository.take_lease(THREE, 60, waits=False) is None
    assert await repository.take_lease(TWO, 60, waits=False) is not None


async def test_many_leases_and_places_are_released_at_once(repository: SessionRepository) -> None:
    held = [Claim(f"s{number}", f"holder {number}") for number in range(600)]
    waiting = [Claim(claim.session_id, f"waiting {claim.session_id}") for claim in held]
    places = [Claim(f"t{number}", f"waiting {number}") for number in range(5)]
    for claim in held:
        await take(repository, claim.session_id, claim.owner)
    for claim in waiting[::10]:
        await repository.take_lease(claim, 60, waits=True)
    for claim in places:
        await take(repository, claim.session_id, "another")
        await repository.take_lease(claim, 60, waits=True)

    await repository.release_leases([*held, *places])

    # First those that were handed a lease: they have two seconds to take it.
    for claim in waiting[::10]:
        assert await repository.take_lease(claim, 60, waits=False) is not None
    later = [await repository.take_lease(Claim(claim.session_id, "later"), 60, waits=False) for claim in held]
    assert [lease is None for lease in later] == [number % 10 == 0 for number in range(600)]
    await repository.release_leases([Claim(claim.session_id, "another") for claim in places])
    assert await repository.take_lease(Claim(places[0].session_id, "later"), 60, waits=False) is not None


async def test_who_watches_is_woken_until_it_has_the_lease(
    repository: SessionRepository, other: SessionRepository
) -> None:
    await take(repository)
    waiting = [asyncio.create_task(waited_for(other, claim)) for claim in (TWO, THREE)]
    for task in waiting:
        await asyncio.wait([task], timeout=0.05)
        assert not task.done()

    await repository.release_leases([ONE])
    done, _ = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    await other.release_leases([task.result().claim for task in done])
    leases = await asyncio.gather(*waiting)

    assert {lease.claim for lease in leases} == {TWO, THREE}


@pytest.mark.parametrize("attempt", [0, 3, 1_000_000])
async def test_a_pause_ends_by_itself(repository: SessionRepository, attempt: int) -> None:
    async with asyncio.timeout(10):
        with repository.watch("s") as pause, repository.watch("s"):
            await pause(attempt)
            await pause(attempt)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 30, 100, 300])
async def test_a_cancelled_attempt_leaves_a_lease_that_the_claim_can_give_back(
    repository: SessionRepository, turns: int
) -> None:
    taking = asyncio.create_task(repository.take_lease(ONE, 60, waits=True))
    for _ in range(turns):
        # Not to wait for anything: each turn of the loop cancels the attempt at another step.
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)

    await repository.release_leases([ONE])

    assert await repository.take_lease(TWO, 60, waits=False) is not None
