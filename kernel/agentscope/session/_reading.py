"""Bringing what is known of a session up to date: by all of it, or by what others have added to it."""

import asyncio
from collections.abc import Collection, Mapping

import orjson

from agentscope.module import TrackedList
from agentscope.session._known import KnownList, KnownModule, KnownSession
from agentscope.session._port import ModuleHead, SessionReader

CHUNK = 200
"""How many items are decoded or encoded before the event loop turns: about two milliseconds."""

Wanted = Mapping[str, Mapping[str, TrackedList]]
"""By module name and JSON pointer, the tracked lists of the modules to load: what is read is made one of that kind."""


async def read_session(
    reader: SessionReader, session_id: str, names: Collection[str] | None, wanted: Wanted, known: KnownSession
) -> KnownSession:
    """What is stored of the named modules, or of all. Of what is known only what is new is read.

    The reader must not change meanwhile: it is a snapshot, or the session is leased.
    """
    since = known.revision.fence if names is not None and all(known.modules.get(name) for name in names) else 0
    stored = await reader.load(session_id, names, since=since)
    if stored is None:
        return KnownSession()
    summary = stored.summary
    fresh = KnownSession(stored.revision, summary.created_at, complete=names is None, owner=summary.owner)
    fresh.modules.update(dict.fromkeys(names or ()))
    if not known.may_be_earlier(fresh):
        known = KnownSession()
        stored = await reader.load(session_id, names) if since else stored
    heads: Mapping[str, ModuleHead | None] = {} if stored is None else stored.modules
    for name, head in heads.items():
        fresh.modules[name] = await _read_module(reader, session_id, name, head, wanted.get(name, {}), known, fresh)
    return fresh


async def read_heads(reader: SessionReader, session_id: str, names: Collection[str]) -> dict[str, KnownModule | None]:
    """The named modules, without the items of their tracked lists."""
    stored = await reader.load(session_id, names)
    heads: Mapping[str, ModuleHead | None] = {} if stored is None else stored.modules
    modules: dict[str, KnownModule | None] = dict.fromkeys(names)
    for name, head in heads.items():
        if head is not None:
            lists = {pointer: KnownList(rewritten, None) for pointer, rewritten in head.lists.items()}
            modules[name] = KnownModule(head.state, lists)
    return modules


async def _read_module(
    reader: SessionReader,
    session_id: str,
    name: str,
    head: ModuleHead | None,
    wanted: Mapping[str, TrackedList],
    known: KnownSession,
    fresh: KnownSession,
) -> KnownModule:
    old = known.modules.get(name)
    if head is None:
        assert old is not None, "a head is left out only of a module that is known"
        head = ModuleHead(old.state, {pointer: there.rewritten for pointer, there in old.lists.items()})
    lists: dict[str, KnownList] = {}
    for pointer, rewritten in head.lists.items():
        before = None if old is None or rewritten > known.revision.fence else old.lists.get(pointer)
        if before is not None and before.items is not None and fresh.revision == known.revision:
            lists[pointer] = before
        else:
            begun = None if before is None else before.items
            items = await _read_items(reader, session_id, name, pointer, begun, wanted.get(pointer))
            lists[pointer] = KnownList(rewritten, items)
    return KnownModule(head.state, lists)


async def _read_items(
    reader: SessionReader,
    session_id: str,
    name: str,
    pointer: str,
    begun: TrackedList | list[str] | None,
    kind: TrackedList | None,
) -> TrackedList | list[str]:
    if kind is None:
        texts = list(begun) if isinstance(begun, list) else []
        async for page in reader.items(session_id, name, pointer, len(texts)):
            texts.extend(page)
        return texts
    items = begun if isinstance(begun, type(kind)) else kind.spliced(0, ())
    async for page in reader.items(session_id, name, pointer, len(items)):
        for first in range(0, len(page), CHUNK):
            items = items.spliced(len(items), map(orjson.loads, page[first : first + CHUNK]))
            await asyncio.sleep(0)
    return items
