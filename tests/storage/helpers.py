"""Short words for what the tests of a repository do with it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from agentscope.session import (
    Claim,
    InvocationRecord,
    InvocationStore,
    ItemPage,
    Lease,
    LineBatch,
    ListChange,
    ModuleChange,
    ModuleHead,
    Revision,
    SessionReader,
    SessionRepository,
)

OpenStore = Callable[[], AbstractAsyncContextManager[SessionRepository]]

LIST = "/content"
"""The pointer of the tracked list that most tests have."""


class Module(NamedTuple):
    """All that is stored of a module."""

    state: str
    lists: Mapping[str, list[str]]


async def take(
    repository: SessionRepository, session_id: str = "s", owner: str = "one", *, ttl: float = 60.0
) -> Lease:
    """A session's lease, which must be free."""
    lease = await repository.take_lease(Claim(session_id, owner), ttl, waits=False)
    assert lease is not None
    return lease


def put(state: str = "{}") -> ModuleChange:
    """A module without lists."""
    return ModuleChange(ModuleHead(state))


def put_list(items: list[str], *, state: str = "{}", pointer: str = LIST, rewritten: int = 1) -> ModuleChange:
    """A module with a list, for the first time."""
    return ModuleChange(ModuleHead(state, {pointer: rewritten}), {pointer: ListChange(0, items)})


def append(start: int, *items: str, pointer: str = LIST) -> ModuleChange:
    """Items after the ``start`` that there are."""
    return ModuleChange(None, {pointer: ListChange(start, items)})


def rewrite(start: int, *items: str, state: str = "{}", pointer: str = LIST, rewritten: int = 2) -> ModuleChange:
    """Items in the place of those from ``start`` on."""
    return ModuleChange(ModuleHead(state, {pointer: rewritten}), {pointer: ListChange(start, items, rewrites=True)})


async def save(repository: SessionRepository, session_id: str = "s", /, **modules: ModuleChange) -> Revision:
    """Save a session that nobody uses."""
    lease = await take(repository, session_id, "the saver")
    try:
        return await repository.save(lease, modules, expected=lease.revision)
    finally:
        await repository.release_leases([lease.claim])


async def items(
    reader: SessionReader, session_id: str = "s", module: str = "memory", pointer: str = LIST
) -> list[str]:
    """All items of a list."""
    return [item async for page in reader.items(session_id, module, pointer) for item in page]


async def contents(reader: SessionReader, session_id: str = "s") -> dict[str, Module] | None:
    """All that is stored of a session; None when there is none."""
    stored = await reader.load(session_id)
    if stored is None:
        return None
    modules: dict[str, Module] = {}
    for name, head in stored.modules.items():
        assert head is not None
        lists = {pointer: await items(reader, session_id, name, pointer) for pointer in head.lists}
        modules[name] = Module(head.state, lists)
    return modules


def size(modules: Mapping[str, Module]) -> int:
    """The bytes of all that is stored."""
    texts = [module.state for module in modules.values()]
    texts += [item for module in modules.values() for stored in module.lists.values() for item in stored]
    return sum(len(text.encode()) for text in texts)


def invocations_of(repository: SessionRepository) -> InvocationStore:
    """What a store knows of invocations, which must be something."""
    invocations = getattr(repository, "invocations", None)
    assert isinstance(invocations, InvocationStore)
    return invocations


async def begin(
    invocations: InvocationStore,
    invocation_id: str = "i",
    /,
    *lines: str,
    session_id: str = "s",
    key: str | None = None,
    alive: float = 60,
    kept: float = 60,
    ends: bool = False,
) -> None:
    """An invocation with lines."""
    record = InvocationRecord(invocation_id, session_id, idempotency_key=key)
    assert await invocations.open_invocation(record, alive, kept) is None
    if lines or ends:
        await invocations.append_lines([LineBatch(invocation_id, 1, lines, ends)], alive)


async def pages_of(*pages: ItemPage) -> AsyncIterator[ItemPage]:
    """Pages for a restore."""
    for page in pages:
        yield page
