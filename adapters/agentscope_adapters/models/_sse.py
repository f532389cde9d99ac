"""Server-sent events, from the bytes of a stream as they come.

After https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, but for what only a
client that reconnects needs: ``id`` and ``retry``.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import orjson

MAX_EVENT_BYTES: Final = 32 * 2**20
"""More than any vendor sends at once, and what a server can hold."""

Event = tuple[bytes, bytes]
"""The type of an event, empty when it has none, and its data."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_FEED: Final = 10
_CARRIAGE_RETURN: Final = 13


class DamagedStreamError(Exception):
    """A stream that isn't what its protocol says. The text holds nothing of what was sent."""


class EventDecoder:
    """The events of one stream; they are the same wherever the bytes were split.

    A line ends with CR, LF or both. ``limit`` is the bytes that the lines of an event may have.
    """

    __slots__ = ("_after_return", "_at_start", "_between", "_data", "_held", "_limit", "_line", "_name", "_unfinished")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._at_start = True
        self._between = False
        self._after_return = False
        self._line: list[bytes] = []  # pieces of a line without an end: joined once, however many they are
        self._unfinished = 0
        self._name = b""
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, piece: bytes) -> Iterable[Event]:
        """The events that the next bytes complete, all of which must be read before the next bytes are fed.

        Raises ``DamagedStreamError`` when one is larger than the limit.
        """
        if self._between and piece.endswith(b"\n\n") and len(piece) <= self._limit:
            # An answer is hundreds of pieces, and nearly each is one plain event: that takes a third of the time so.
            lines = piece.splitlines()
            if len(lines) == 2 and lines[0].startswith(b"data: "):
                return ((b"", lines[0][6:]),)
            if len(lines) == 3 and lines[0].startswith(b"event: ") and lines[1].startswith(b"data: "):
                return ((lines[0][7:], lines[1][6:]),)
        return self._events(piece)

    def _events(self, piece: bytes) -> Iterator[Event]:
        for line in self._lines(piece):
            if self._held + len(line) > self._limit:
                raise self._too_large()
            if line:
                field, _, value = line.partition(b":")
                if field == b"data":
                    self._data.append(value[1:] if value.startswith(b" ") else value)
                    self._held += len(line)
                elif field == b"event":
                    self._name = value[1:] if value.startswith(b" ") else value
                continue
            name, data = self._name, self._data
            self._name, self._data, self._held = b"", [], 0
            if data:
                yield name, data[0] if len(data) == 1 else b"\n".join(data)
        if self._held + self._unfinished > self._limit:
            raise self._too_large()
        self._between = not (self._at_start or self._after_return or self._unfinished or self._name or self._data)

    def _lines(self, piece: bytes) -> list[bytes]:
        """The lines that the next bytes complete, without their ends."""
        if self._after_return and piece:
            self._after_return = False
            if piece[0] == _LINE_FEED:
                piece = piece[1:]
        if not piece:
            return []
        lines = piece.splitlines()
        last = piece[-1]
        self._after_return = last == _CARRIAGE_RETURN
        rest = b"" if self._after_return or last == _LINE_FEED else lines.pop()
        if lines:
            if self._unfinished:
                lines[0] = b"".join((*self._line, lines[0]))
                self._line.clear()
                self._unfinished = 0
            if self._at_start:
                lines[0] = lines[0].removeprefix(_BOM)
                self._at_start = False
        if rest:
            self._line.append(rest)
            self._unfinished += len(rest)
        return lines

    def _too_large(self) -> DamagedStreamError:
        return DamagedStreamError(f"an event of the stream is larger than {self._limit} bytes")


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in an answer of a vendor's. Raises ``DamagedStreamError`` when there is none."""
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _lenient(data)
    if not isinstance(value, dict):
        raise DamagedStreamError("the answer holds something else than a JSON object where there should be one")
    return cast("dict[str, Any]", value)


def _lenient(data: bytes) -> object:
    # Some vendors write NaN for a probability, or half a surrogate pair at the end of a chunk.
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedStreamError("the answer is not JSON") from error
