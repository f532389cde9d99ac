"""What a save has to write: how the modules differ from what is known to be stored."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from agentscope.module import TrackedList
from agentscope.session._json import split, to_json
from agentscope.session._known import KnownList, KnownModule
from agentscope.session._port import ListChange, ModuleChange, ModuleHead
from agentscope.session._reading import CHUNK


@dataclass(frozen=True, slots=True)
class Captured:
    """A module's state at the moment of the save: JSON text, and the tracked lists that are empty in it."""

    state: str
    lists: Mapping[str, TrackedList]


def capture(session_id: str, name: str, state: object) -> Captured:
    """The state of the module called ``name``. Raises ``StateNotSerializableError`` for what JSON can't hold."""
    return Captured(*split(session_id, name, state))


async def find_change(
    session_id: str, name: str, captured: Captured, known: KnownModule | None, fence: int
) -> tuple[ModuleChange | None, KnownModule]:
    """What to write of a module, None for nothing, and what is known of it once that is written.

    ``known`` is what is stored, None when the session has no such module; ``fence`` is the lease's fencing number.
    """
    before = {} if known is None else known.lists
    changes: dict[str, ListChange] = {}
    lists: dict[str, KnownList] = {}
    for pointer, items in captured.lists.items():
        change = await _find_list_change(session_id, f"{name}{pointer.replace('/', '.')}", items, before.get(pointer))
        if change is not None:
            changes[pointer] = change
        old = before.get(pointer)
        is_new = old is None or (change is not None and change.rewrites)
        lists[pointer] = KnownList(fence if old is None or is_new else old.rewritten, items)
    for pointer in before.keys() - captured.lists.keys():
        changes[pointer] = ListChange(0, (), rewrites=True)
    after = KnownModule(captured.state, lists)
    head = _head(after)
    if known is not None and head == _head(known):
        return (ModuleChange(None, changes) if changes else None), after
    return ModuleChange(head, changes), after


def _head(module: KnownModule) -> ModuleHead:
    return ModuleHead(module.state, {pointer: known.rewritten for pointer, known in module.lists.items()})


async def _find_list_change(
    session_id: str, path: str, items: TrackedList, known: KnownList | None
) -> ListChange | None:
    if known is None:
        start, stored = 0, 0
    elif known.items is None:
        # How many there are was not read: whatever there is goes.
        return ListChange(0, await _encoded(session_id, path, items, 0), rewrites=True)
    else:
        start, stored = await _unchanged(items, known.items), len(known.items)
    if start == stored == len(items):
        return None
    return ListChange(start, await _encoded(session_id, path, items, start), rewrites=start < stored)


async def _unchanged(items: TrackedList, before: TrackedList | list[str]) -> int:
    if type(before) is type(items):
        return items.unchanged(before)
    if not isinstance(before, list):
        return 0
    # Not the module's own kind of list: nothing but the texts can tell.
    for position, (state, text) in enumerate(zip(items.states(), before, strict=False)):
        if orjson.dumps(state).decode() != text:
            return position
        if position % CHUNK == CHUNK - 1:
            await asyncio.sleep(0)
    return min(len(items), len(before))


async def _encoded(session_id: str, path: str, items: TrackedList, start: int) -> list[str]:
    texts: list[str] = []
    for position, state in enumerate(items.states(start), start):
        texts.append(to_json(session_id, f"{path}[{position}]", state))
        if len(texts) % CHUNK == 0:
            await asyncio.sleep(0)
    return texts
