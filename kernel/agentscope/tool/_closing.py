"""Closing what a tool left open."""

import asyncio
import logging
from collections.abc import Iterable

_log = logging.getLogger("agentscope.tool")


async def close_all(iterators: Iterable[object]) -> None:
    """Close iterators in their order. A cancellation meanwhile is for the one being closed; the rest is closed too."""
    cut: asyncio.CancelledError | None = None
    for iterator in iterators:
        try:
            await close(iterator)
        except asyncio.CancelledError as error:
            cut = error
    if cut is not None:
        raise cut


async def close(iterator: object) -> None:
    """Close an iterator, if it can be. What its clean-up raises is logged: the call's result is known by then."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        try:
            await aclose()
        except Exception:
            _log.warning("the clean-up of a tool failed", exc_info=True)
