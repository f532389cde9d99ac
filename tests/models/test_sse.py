"""Server-sent events, as the specification has them, wherever the network splits their bytes."""

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscope_adapters.models._sse import DamagedStreamError, Event, EventDecoder, json_object

# What means something in a stream, and so what has to be split and mixed.
FRAGMENTS = st.sampled_from(
    [
        *(b"\n", b"\r", b"\r\n", b"\n\n", b":", b" ", b"data", b"data:", b"data: ", b"event: ", b"event", b"id: 1"),
        *(b"data: {}\n\n", b"event: a\ndata: b\n\n", "é€😀".encode(), b"\xef\xbb\xbf", b"\xff"),
    ]
)
STREAMS = st.lists(FRAGMENTS, max_size=40).map(b"".join)


def events(pieces: Iterable[bytes], limit: int = 1000) -> list[Event]:
    decoder = EventDecoder(limit)
    return [event for piece in pieces for event in decoder.feed(piece)]


def split(stream: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds)]


def by_the_book(stream: bytes) -> list[Event]:
    """The specification's algorithm, word for word, on a stream that is there."""
    found: list[Event] = []
    name, data = b"", b""
    # What follows the last end of a line is no line.
    for line in re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]:
        if not line:
            if data:
                found.append((name, data.removesuffix(b"\n")))
            name, data = b"", b""
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value
            elif field == b"data":
                data += value + b"\n"
    return found


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=30))
def test_the_events_are_those_of_the_specification_for_any_split(stream: bytes, places: list[int]) -> None:
    assert events(split(stream, places)) == by_the_book(stream)


@given(STREAMS)
def test_a_stream_may_come_byte_by_byte(stream: bytes) -> None:
    assert events(split(stream, range(len(stream)))) == events([stream])


@given(st.lists(FRAGMENTS.filter(lambda fragment: fragment != b"\xef\xbb\xbf"), max_size=40).map(b"".join))
def test_the_limit_is_the_same_for_any_split(stream: bytes) -> None:
    def read(pieces: Iterable[bytes]) -> list[Event] | None:
        decoder, found = EventDecoder(12), list[Event]()
        try:
            for piece in pieces:
                found.extend(decoder.feed(piece))
        except DamagedStreamError:
            return None
        return found

    assert read(split(stream, range(len(stream)))) == read([stream])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"event: e\r\ndata: a\r\n\r\n", [(b"e", b"a")]),
        (b"event: e\rdata: a\r\r", [(b"e", b"a")]),
        (b": a comment\ndata: a\n\n", [(b"", b"a")]),
        (b"data:a\n\ndata:  b\n\n", [(b"", b"a"), (b"", b" b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"retry: 3\n\nid: 1\n\nevent: e\n\ndata: a\n\n", [(b"", b"a")]),
        (b"data\n\ndata: a\n\n", [(b"", b""), (b"", b"a")]),
        (b"Data: a\n data: b\n\n", []),
        (b"data: a\n\ndata: never ended\n", [(b"", b"a")]),
    ],
    ids=["lines", "CRLF", "CR", "comment", "spaces", "BOM", "without data", "empty data", "other fields", "cut"],
)
def test_an_event_is_what_the_specification_says(stream: bytes, expected: list[Event]) -> None:
    assert events([stream]) == expected


@pytest.mark.parametrize(
    "pieces",
    [[b"data: " + b"x" * 100], [b"x"] * 100, [b"data: x\n"] * 20, [b":" + b"x" * 100 + b"\n"]],
    ids=["line", "pieces of a line", "lines of an event", "comment"],
)
def test_what_grows_without_end_is_given_up(pieces: list[bytes]) -> None:
    with pytest.raises(DamagedStreamError, match="larger than 50 bytes"):
        events(pieces, limit=50)


def test_many_small_events_have_no_limit_together() -> None:
    assert len(events([b": comment\ndata: x\n\n"] * 100, limit=50)) == 100


@pytest.mark.parametrize(
    ("data", "value"),
    [(b'{"a": NaN}', "nan"), (rb'{"a": "\ud83d"}', "'\\ud83d'"), ('{"a": "é"}'.encode(), "'é'")],
    ids=["NaN", "half a surrogate pair", "UTF-8"],
)
def test_json_is_read_as_leniently_as_the_sdks_do(data: bytes, value: str) -> None:
    assert repr(json_object(data)["a"]) == value


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b'"text"', b"null", b'{"a": "\xff"}', b"[" * 100_000],
    ids=["nothing", "broken", "list", "text", "null", "not UTF-8", "deep"],
)
def test_what_is_no_json_object_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedStreamError):
        json_object(data)
