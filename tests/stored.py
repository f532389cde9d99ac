"""Sessions as a store keeps them, written without a runtime."""

from collections.abc import Sequence

import orjson

from agentscope.message import Msg
from agentscope.session import Claim, ListChange, ModuleChange, ModuleHead, Revision, SessionRepository


def said(text: str, msg_id: str | None = None) -> Msg:
    """A message of the user."""
    return Msg("user", text, "user", id=msg_id)


def entry(msg: Msg, *marks: str) -> list[object]:
    """A message with its marks, as a memory stores it."""
    return [msg.to_dict(), list(marks)]


def memory_of(*messages: Msg, at: str = "/content", state: str = '{"_compressed_summary":"the past"}') -> ModuleChange:
    """A module whose memory's list is a tracked one; each message has a mark."""
    return tracked([entry(msg, "a mark") for msg in messages], at=at, state=state)


def tracked(items: Sequence[object], *, at: str = "/content", state: str = "{}") -> ModuleChange:
    """A module with a tracked list of whatever items."""
    return ModuleChange(ModuleHead(state, {at: 0}), {at: ListChange(0, list(map(_json, items)), rewrites=True)})


def added(start: int, *messages: Msg, at: str = "/content") -> ModuleChange:
    """More messages of a tracked list."""
    return ModuleChange(None, {at: ListChange(start, [_json(entry(msg)) for msg in messages])})


def plain(state: object) -> ModuleChange:
    """A module without tracked lists."""
    return ModuleChange(ModuleHead(_json(state)))


async def store(
    repository: SessionRepository, session_id: str, owner: str | None = None, /, **modules: ModuleChange
) -> Revision:
    """Save modules of a session that nobody uses; it belongs to ``owner`` if it is new."""
    claim = Claim(session_id, "the test")
    lease = await repository.take_lease(claim, 60, waits=False)
    assert lease is not None
    try:
        return await repository.save(lease, modules, expected=lease.revision, owner=owner)
    finally:
        await repository.release_leases([claim])


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
