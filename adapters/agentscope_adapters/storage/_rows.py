"""The rows of heads and items, as saving and restoring a session write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
from sqlalchemy import Connection, insert

from agentscope.session import ModuleHead
from agentscope_adapters.storage._schema import session_items
from agentscope_adapters.storage._statements import chunks

_AT_ONCE: Final = 1_000
"""Rows that are handed to the driver together."""

# Row by row, not as one INSERT of many rows: that is compiled anew for each number of rows, which halves the speed.
_PUT_ITEM = insert(session_items)


def size_of(text: str) -> int:
    """Its bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def head_row(session_id: str, name: str, head: ModuleHead, fence: int) -> dict[str, Any]:
    """The row of a module whose head a save under ``fence`` changes."""
    return {
        "session_id": session_id,
        "name": name,
        "head": head.state,
        "lists": orjson.dumps(dict(head.lists)).decode(),
        "fence": fence,
        "size_bytes": size_of(head.state),
    }


def item_rows(
    session_id: str, module: str, pointer: str, start: int, items: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """The rows of a list's items from position ``start`` on."""
    for position, item in enumerate(items, start):
        yield {
            "session_id": session_id,
            "module": module,
            "pointer": pointer,
            "position": position,
            "size_bytes": size_of(item),
            "item": item,
        }


def put_items(connection: Connection, rows: Iterable[dict[str, Any]]) -> int:
    """Insert rows of ``item_rows``, however many, and return the sum of their sizes."""
    size = 0
    for chunk in chunks(rows, _AT_ONCE):
        connection.execute(_PUT_ITEM, chunk)
        size += sum(row["size_bytes"] for row in chunk)
    return size
