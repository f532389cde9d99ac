"""Bytes as lines."""

from collections.abc import Callable


class Lines:
    """Bytes as lines. What is longer than ``limit`` is cut."""

    def __init__(self, take: Callable[[bytes], None], limit: int | None = None) -> None:
        self._take = take
        self._limit = limit
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take what came: a part of a line, or several lines."""
        first, *rest = data.split(b"\n")
        self._add(first)
        for part in rest:
            self._take(b"".join(self._parts))
            self._parts.clear()
            self._add(part)

    def _add(self, part: bytes) -> None:
        if self._limit is not None:
            part = part[: max(0, self._limit - sum(map(len, self._parts)))]
        if part:
            self._parts.append(part)
