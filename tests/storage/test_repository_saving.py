"""What every store keeps to when a session is saved or deleted: the in-memory one, SQLite and Postgres."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agentscope.errors import SessionConflictError
from agentscope.session import (
    NEVER_SAVED,
    Claim,
    Lease,
    ListChange,
    ModuleChange,
    ModuleHead,
    Revision,
    SessionRepository,
)
from storage.helpers import LIST, Module, append, contents, put, put_list, rewrite, save, size, take

SAVERS = 32


async def refused(
    repository: SessionRepository, lease: Lease, changes: Mapping[str, ModuleChange], expected: Revision
) -> SessionConflictError:
    """The conflict that a save meets, which leaves everything as it was."""
    before = await repository.load("s"), await contents(repository)
    with pytest.raises(SessionConflictError) as caught:
        await repository.save(lease, changes, expected=expected)
    assert (await repository.load("s"), await contents(repository)) == before
    assert caught.value.session_id == "s"
    return caught.value


async def test_a_store_is_a_session_repository_that_answers(repository: SessionRepository) -> None:
    assert isinstance(repository, SessionRepository)
    await repository.ping()


async def test_a_first_save_is_version_1_under_the_fence_of_its_lease(repository: SessionRepository) -> None:
    lease = await take(repository)
    assert lease.revision == NEVER_SAVED

    changes = {"memory": put_list(["1", "2"]), "plan": put('{"a":1}')}
    saved = await repository.save(lease, changes, expected=NEVER_SAVED)

    assert saved == Revision(1, lease.fence)
    stored = await repository.load("s")
    assert stored is not None
    assert stored.revision == saved
    assert stored.modules == {"memory": ModuleHead("{}", {LIST: 1}), "plan": ModuleHead('{"a":1}')}
    assert await contents(repository) == {"memory": Module("{}", {LIST: ["1", "2"]}), "plan": Module('{"a":1}', {})}


async def test_every_save_with_changes_is_a_version(repository: SessionRepository) -> None:
    lease = await take(repository)
    first = await repository.save(lease, {"plan": put()}, expected=NEVER_SAVED)
    second = await repository.save(lease, {"plan": put("[2]")}, expected=first)
    assert (first, second) == (Revision(1, lease.fence), Revision(2, lease.fence))
    await repository.release_leases([lease.claim])

    later = await take(repository, owner="two")
    assert later.revision == second
    assert await repository.save(later, {"plan": put("[3]")}, expected=second) == Revision(3, later.fence)


async def test_a_save_has_the_time_that_its_caller_says(repository: SessionRepository) -> None:
    lease = await take(repository)
    made = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    first = await repository.save(lease, {"plan": put("1")}, expected=NEVER_SAVED, saved_at=made)
    later = datetime(2026, 1, 2, 5, 4, 5, 678902, tzinfo=timezone(timedelta(hours=1)))
    await repository.save(lease, {"plan": put("2")}, expected=first, saved_at=later)

    stored = await repository.load("s")
    assert stored is not None
    assert (stored.summary.created_at, stored.summary.updated_at) == (made, later)


async def test_a_save_without_changes_renews_the_time_and_keeps_the_revision(repository: SessionRepository) -> None:
    revision = await save(repository, memory=put_list(["1"]))
    before = await repository.load("s")
    lease = await take(repository)

    assert await repository.save(lease, {}, expected=revision) == revision

    after = await repository.load("s")
    assert before is not None
    assert after is not None
    assert after.summary.updated_at > before.summary.updated_at
    assert after.summary.created_at == before.summary.created_at
    assert (after.revision, after.modules, after.summary.size_bytes) == (revision, before.modules, 1 + len("{}"))


async def test_a_session_without_modules_is_made_by_a_save_without_changes(repository: SessionRepository) -> None:
    lease = await take(repository)

    assert await repository.save(lease, {}, expected=NEVER_SAVED) == Revision(1, lease.fence)

    assert await contents(repository) == {}


async def test_items_are_appended_and_the_head_stays(repository: SessionRepository) -> None:
    await save(repository, memory=put_list(["1"], state='{"a":1}'))
    await save(repository, memory=append(1, "2", "3"))
    await save(repository, memory=append(3, "4"))

    assert await contents(repository) == {"memory": Module('{"a":1}', {LIST: ["1", "2", "3", "4"]})}


@pytest.mark.parametrize(
    ("start", "new", "there"),
    [
        (2, ["c", "d", "e"], ["1", "2", "c", "d", "e"]),
        (0, ["a"], ["a"]),
        (1, [], ["1"]),
        (0, [], []),
        (4, ["e"], ["1", "2", "3", "4", "e"]),
    ],
    ids=["the end", "all, by less", "less", "to nothing", "behind the end"],
)
async def test_a_list_is_rewritten_from_a_position_on(
    repository: SessionRepository, start: int, new: list[str], there: list[str]
) -> None:
    await save(repository, memory=put_list(["1", "2", "3", "4"]), other=put_list(["x", "y"]))
    await save(repository, memory=rewrite(start, *new, state='{"a":1}', rewritten=7))

    expected = {"memory": Module('{"a":1}', {LIST: there}), "other": Module("{}", {LIST: ["x", "y"]})}
    assert await contents(repository) == expected
    stored = await repository.load("s", ["memory"])
    assert stored is not None
    assert stored.modules == {"memory": ModuleHead('{"a":1}', {LIST: 7})}


async def test_a_list_goes_when_it_is_cut_off_at_the_begin(repository: SessionRepository) -> None:
    two = ModuleChange(ModuleHead("{}", {"/a": 1, "/b": 1}), {"/a": ListChange(0, ["1"]), "/b": ListChange(0, ["2"])})
    await save(repository, memory=two)
    gone = ModuleChange(ModuleHead('{"a":null}', {"/b": 1}), {"/a": ListChange(0, (), rewrites=True)})
    await save(repository, memory=gone)

    assert await contents(repository) == {"memory": Module('{"a":null}', {"/b": ["2"]})}
    assert [page async for page in repository.items("s", "memory", "/a")] == []


async def test_several_lists_are_rewritten_by_one_save(repository: SessionRepository) -> None:
    pointers = [f"/{number}" for number in range(5)]
    head = ModuleHead("{}", dict.fromkeys(pointers, 1))
    await save(repository, memory=ModuleChange(head, {at: ListChange(0, ["1", "22", "333"]) for at in pointers}))
    change = {at: ListChange(number % 3, ["new"], rewrites=True) for number, at in enumerate(pointers)}
    await save(repository, memory=ModuleChange(head, change))

    there = {at: [*["1", "22", "333"][: number % 3], "new"] for number, at in enumerate(pointers)}
    assert await contents(repository) == {"memory": Module("{}", there)}


async def test_a_save_keeps_the_modules_and_lists_that_it_does_not_name(repository: SessionRepository) -> None:
    head = ModuleHead("{}", {"/a": 1, "/b": 1})
    lists = {"/a": ListChange(0, ["1"]), "/b": ListChange(0, ["2"])}
    await save(repository, memory=ModuleChange(head, lists), plan=put("1"))
    await save(repository, memory=ModuleChange(ModuleHead('{"c":1}', {"/a": 1, "/b": 1})), new=put("null"))

    assert await contents(repository) == {
        "memory": Module('{"c":1}', {"/a": ["1"], "/b": ["2"]}),
        "plan": Module("1", {}),
        "new": Module("null", {}),
    }


@pytest.mark.parametrize("changes", [{}, {"plan": put("stale"), "new": put()}], ids=["no changes", "changes"])
@pytest.mark.parametrize(
    "moved", [Revision(-1, 0), Revision(1, 0), Revision(0, 1)], ids=["older", "yet to come", "another fence"]
)
async def test_a_save_from_another_revision_is_a_conflict_and_changes_nothing(
    repository: SessionRepository, changes: dict[str, ModuleChange], moved: Revision
) -> None:
    await save(repository, plan=put("1"))
    revision = await save(repository, plan=put("2"))
    lease = await take(repository)
    expected = Revision(revision.version + moved.version, revision.fence + moved.fence)

    conflict = await refused(repository, lease, changes, expected)

    assert (conflict.expected, conflict.found, conflict.lease_lost) == (expected.version, 2, False)


async def test_a_first_save_of_a_session_that_exists_is_a_conflict(repository: SessionRepository) -> None:
    await save(repository, plan=put("1"))
    lease = await take(repository)

    conflict = await refused(repository, lease, {"plan": put("2")}, NEVER_SAVED)

    assert (conflict.expected, conflict.found, conflict.lease_lost) == (0, 1, False)


@pytest.mark.parametrize("changes", [{}, {"plan": put()}], ids=["no changes", "changes"])
async def test_a_save_of_a_session_that_is_gone_does_not_bring_it_back(
    repository: SessionRepository, changes: dict[str, ModuleChange]
) -> None:
    lease = await take(repository)

    conflict = await refused(repository, lease, changes, Revision(4, lease.fence))

    assert (conflict.expected, conflict.found, conflict.lease_lost) == (4, None, False)


@pytest.mark.parametrize("changes", [{}, {"plan": put("stale")}], ids=["no changes", "changes"])
@pytest.mark.parametrize("exists", [True, False], ids=["a session", "no session"])
@pytest.mark.parametrize("loss", ["expired", "released", "taken over", "taken once more", "pending for another"])
async def test_a_save_under_a_lost_lease_is_a_conflict_and_changes_nothing(
    repository: SessionRepository, changes: dict[str, ModuleChange], exists: bool, loss: str
) -> None:
    revision = await save(repository, plan=put("1")) if exists else NEVER_SAVED
    lease = await take(repository)
    if loss == "pending for another":
        assert await repository.take_lease(Claim("s", "two"), 60, waits=True) is None
        await repository.release_leases([lease.claim])
    elif loss == "released":
        await repository.release_leases([lease.claim])
    elif loss == "taken once more":
        await take(repository)
    else:
        await repository.renew_leases([lease.claim], 0)
    if loss == "taken over":
        await take(repository, owner="two")

    conflict = await refused(repository, lease, changes, revision)

    assert (conflict.expected, conflict.found) == (revision.version, revision.version or None)
    assert conflict.lease_lost


async def test_of_two_first_saves_from_the_same_lease_the_second_is_a_conflict(repository: SessionRepository) -> None:
    lease = await take(repository)
    saves = [repository.save(lease, {"plan": put(str(saver))}, expected=NEVER_SAVED) for saver in range(SAVERS)]

    results = await asyncio.gather(*saves, return_exceptions=True)

    assert [result for result in results if not isinstance(result, SessionConflictError)] == [Revision(1, lease.fence)]


async def test_of_many_saves_from_one_revision_one_lands(
    repository: SessionRepository, other: SessionRepository
) -> None:
    revision = await save(repository, memory=put_list([]))
    lease = await take(repository)
    stores = [repository, other]

    results = await asyncio.gather(
        *(
            stores[saver % 2].save(lease, {"memory": append(0, str(saver), str(saver))}, expected=revision)
            for saver in range(SAVERS)
        ),
        return_exceptions=True,
    )

    assert [result for result in results if not isinstance(result, SessionConflictError)] == [Revision(2, lease.fence)]
    stored = await contents(repository)
    assert stored is not None
    first, second = stored["memory"].lists[LIST]
    assert first == second


async def test_concurrent_saves_of_different_sessions_all_land(
    repository: SessionRepository, other: SessionRepository
) -> None:
    stores = [repository, other]
    sessions = [f"s{number}" for number in range(SAVERS)]

    await asyncio.gather(
        *(save(stores[number % 2], name, memory=put_list([str(number)])) for number, name in enumerate(sessions))
    )

    for number, name in enumerate(sessions):
        assert await contents(repository, name) == {"memory": Module("{}", {LIST: [str(number)]})}


async def test_a_session_that_was_deleted_and_made_anew_is_at_another_revision(repository: SessionRepository) -> None:
    old = await save(repository, plan=put("old"))
    lease = await take(repository)
    assert await repository.delete(lease)
    await repository.release_leases([lease.claim])
    new = await save(repository, plan=put("new"))

    assert (new.version, new.fence > old.fence) == (old.version, True)
    await refused(repository, await take(repository), {"plan": put("stale")}, old)


async def test_a_deleted_session_is_gone_with_all_it_had(repository: SessionRepository) -> None:
    await save(repository, memory=put_list(["1"]), plan=put())
    await save(repository, "other", memory=put_list(["2"]))
    lease = await take(repository)

    assert await repository.delete(lease) is True
    assert await repository.delete(lease) is False

    assert await contents(repository) is None
    assert await contents(repository, "other") == {"memory": Module("{}", {LIST: ["2"]})}
    await repository.save(lease, {"memory": put_list([])}, expected=NEVER_SAVED)
    assert await contents(repository) == {"memory": Module("{}", {LIST: []})}


@pytest.mark.parametrize("exists", [True, False], ids=["a session", "no session"])
async def test_deleting_under_a_lost_lease_is_a_conflict(repository: SessionRepository, exists: bool) -> None:
    if exists:
        await save(repository, plan=put())
    lease = await take(repository)
    await repository.renew_leases([lease.claim], 0)

    with pytest.raises(SessionConflictError) as caught:
        await repository.delete(lease)

    assert caught.value.lease_lost
    assert (await contents(repository) is not None) == exists


async def test_the_size_is_that_of_what_is_stored(repository: SessionRepository) -> None:
    saves: list[dict[str, ModuleChange]] = [
        {"memory": put_list(['"é"', '"🗼"'], state='{"a":"東京"}')},
        {"memory": append(2, '"long"', '"longer"'), "plan": put("123")},
        {"memory": ModuleChange(ModuleHead('{"another":"state"}', {LIST: 1})), "plan": put("12345")},
        {"memory": rewrite(1, '"ö"', state="[]")},
        {"memory": ModuleChange(ModuleHead("0"), {LIST: ListChange(0, (), rewrites=True)})},
        {},
    ]
    for changes in saves:
        await save(repository, **changes)

        stored, modules = await repository.load("s"), await contents(repository)
        assert stored is not None
        assert modules is not None
        assert stored.summary.size_bytes == size(modules)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"text": "naïve — 東京 🗼"}, ensure_ascii=False),
        json.dumps({"nul": "\0", "lone surrogate": "\ud83d"}),
        '{"b": 1,  "a": 1.0, "b": 2}',
        '"it\'s a \\"quote\\"; DROP TABLE sessions; -- % :name $1 ?"',
        json.dumps("x" * 1024 * 1024),
    ],
    ids=["unicode", "escapes that text can't hold", "order and spaces", "what SQL reads", "1 MiB"],
)
async def test_states_and_items_come_back_character_for_character(repository: SessionRepository, text: str) -> None:
    await save(repository, memory=put_list([text, "1"], state=text))
    await save(repository, memory=append(2, text, text))

    assert await contents(repository) == {"memory": Module(text, {LIST: [text, "1", text, text]})}


@pytest.mark.parametrize(
    "name",
    ["tenant/用户 🗼", "it's; --", "%s :x $1", "x" * 256, "🗼" * 256],
    ids=["unicode", "quote", "placeholders", "256 letters", "1,024 bytes"],
)
async def test_ids_names_and_pointers_are_any_text(repository: SessionRepository, name: str) -> None:
    pointer = f"/{name}"
    await save(repository, name, **{name: put_list(["1"], pointer=pointer)})

    assert await contents(repository, name) == {name: Module("{}", {pointer: ["1"]})}
    stored = await repository.load(name, [name])
    assert stored is not None
    assert stored.summary.session_id == name


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 30, 100, 300, 1000])
async def test_a_cancelled_save_lands_or_does_not_and_the_store_goes_on(
    repository: SessionRepository, turns: int
) -> None:
    revision = await save(repository, memory=put_list(["before"]))
    lease = await take(repository)
    change = {"memory": append(1, "a", "b")}
    saving = asyncio.create_task(repository.save(lease, change, expected=revision))
    for _ in range(turns):
        # Not to wait for anything: each turn of the loop cancels the save at another step.
        await asyncio.sleep(0)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)

    stored, modules = await repository.load("s"), await contents(repository)
    assert stored is not None
    assert modules is not None
    there = modules["memory"].lists[LIST]
    assert (stored.revision.version, there) in [(1, ["before"]), (2, ["before", "a", "b"])]
    saved = await repository.save(lease, {"memory": append(len(there), "next")}, expected=stored.revision)
    assert saved.version == stored.revision.version + 1
