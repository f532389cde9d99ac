"""Ids of messages, requests and the like."""

import os
from collections.abc import Iterator

_BYTES = 12
_AT_ONCE = 256


class _Ids:
    """Random ids, made many at a time.

    Each call of ``os.urandom`` lets another thread have the interpreter, and while a database's thread works, waiting
    to get it back takes a hundred times as long as the call.
    """

    def __init__(self) -> None:
        self._ids: Iterator[str] = iter(())

    def __call__(self) -> str:
        # One step of a list's iterator: threads that call at once get different ones.
        new = next(self._ids, None)
        return self._more() if new is None else new

    def forget(self) -> None:
        """Make new ones: those of before are another process's."""
        self._ids = iter(())

    def _more(self) -> str:
        digits, width = os.urandom(_BYTES * _AT_ONCE).hex(), 2 * _BYTES
        ids = iter([digits[start : start + width] for start in range(0, len(digits), width)])
        first = next(ids)
        self._ids = ids
        return first


# State of the process by its nature, as the system's own source of random bytes is.
new_id = _Ids()
"""A new random id of 24 hexadecimal digits."""

# Not by asking for the process's id each time: that is a system call, and as dear as the rest.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=new_id.forget)
