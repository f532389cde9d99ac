"""``Msg``: v1's names, and what the HTTP API writes."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from agentscope.message import ContentBlock, Msg

BLOCKS: list[ContentBlock] = [
    {"type": "thinking", "thinking": "hm"},
    {"type": "text", "text": "one"},
    {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}},
    {"type": "text", "text": "two"},
    {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
]


def test_the_dictionary_has_the_keys_of_the_http_api_in_order() -> None:
    msg = Msg("assistant", "Hel", "assistant", {"a": 1})
    data = msg.to_dict()
    assert list(data) == ["id", "name", "role", "content", "metadata", "timestamp"]
    assert (data["content"], data["metadata"]) == ("Hel", {"a": 1})


def test_a_message_comes_back_from_its_dictionary() -> None:
    msg = Msg("user", BLOCKS, "user", metadata={"k": "v"})
    assert Msg.from_dict(msg.to_dict()).to_dict() == msg.to_dict()


def test_a_dictionary_of_v1_without_id_and_metadata_is_taken() -> None:
    msg = Msg.from_dict({"name": "u", "content": "x", "role": "user", "timestamp": "2025-01-02 03:04:05.678"})
    assert msg.timestamp == "2025-01-02 03:04:05.678"
    assert msg.metadata == {}
    assert msg.id


def test_ids_differ_and_stay() -> None:
    ids = {Msg("a", "x", "user").id for _ in range(1000)}
    assert len(ids) == 1000
    msg = Msg("a", "x", "user")
    assert msg.id == msg.id
    msg.id = "mine"
    assert msg.to_dict()["id"] == "mine"


def test_the_timestamp_is_when_the_message_was_made_in_utc() -> None:
    before = datetime.now(UTC)
    msg = Msg("a", "x", "user")
    after = datetime.now(UTC)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", msg.timestamp)
    made = datetime.fromisoformat(msg.timestamp)
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= made <= after


@pytest.mark.parametrize(
    ("content", "text"),
    [("plain", "plain"), ("", ""), (BLOCKS, "one\ntwo"), (BLOCKS[:1], None), ([], None)],
    ids=["string", "empty string", "blocks", "no text block", "nothing"],
)
def test_the_text_is_that_of_the_text_blocks(content: Any, text: str | None) -> None:
    assert Msg("a", content, "user").get_text_content() == text


def test_the_text_blocks_are_joined_as_asked() -> None:
    assert Msg("a", BLOCKS, "user").get_text_content("") == "onetwo"


def test_blocks_are_found_by_type() -> None:
    msg = Msg("a", BLOCKS, "user")
    assert msg.get_content_blocks() == BLOCKS
    assert [block["text"] for block in msg.get_content_blocks("text")] == ["one", "two"]
    assert msg.get_content_blocks("audio") == []
    assert msg.has_content_blocks("tool_use")
    assert not msg.has_content_blocks("video")
    assert msg.has_content_blocks()
    assert not Msg("a", [], "user").has_content_blocks()


def test_a_string_counts_as_one_text_block() -> None:
    assert Msg("a", "x", "user").get_content_blocks() == [{"type": "text", "text": "x"}]
    assert Msg("a", "x", "user").has_content_blocks("text")


def test_a_tuple_of_blocks_becomes_a_list() -> None:
    assert Msg("a", tuple(BLOCKS), "user").content == BLOCKS


@pytest.mark.parametrize(
    ("content", "role", "error", "message"),
    [
        ("x", "robot", ValueError, "role is 'robot': it must be 'user', 'assistant' or 'system'"),
        (["text"], "user", TypeError, r"content\[0\] is not a content block"),
        ([{"text": "x"}], "user", TypeError, r"content\[0\] is not a content block"),
        (None, "user", TypeError, "content is a NoneType"),
        (5, "user", TypeError, "content is a int"),
    ],
    ids=["role", "list of strings", "block without type", "none", "number"],
)
def test_what_is_no_message_is_refused(content: Any, role: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Msg("a", content, role)


def test_the_representation_shows_what_was_said() -> None:
    assert repr(Msg("a", "x", "user", id="1")) == "Msg(name='a', content='x', role='user', id='1')"
