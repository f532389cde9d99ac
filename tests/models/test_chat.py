"""Chunks and the response they add up to."""

from collections.abc import AsyncIterator, Sequence

import pytest

from agentscope.message import ContentBlock
from agentscope.model import ChatChunk, ChatUsage, ModelAuthenticationError, ModelError, ModelRateLimitError, collect


async def stream(chunks: Sequence[ChatChunk]) -> AsyncIterator[ChatChunk]:
    for chunk in chunks:
        yield chunk


def test_a_text_chunk_shows_its_text_as_a_block() -> None:
    assert ChatChunk("x").blocks == [{"type": "text", "text": "x"}]
    assert ChatChunk().blocks == []
    assert ChatChunk(blocks=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}]).text == "x"


async def test_chunks_add_up_to_the_blocks_in_order() -> None:
    use: ContentBlock = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
    response = await collect(
        stream(
            [
                ChatChunk(blocks=[{"type": "thinking", "thinking": "h"}]),
                ChatChunk(blocks=[{"type": "thinking", "thinking": "m", "signature": "s"}]),
                ChatChunk(blocks=[{"type": "thinking", "thinking": "again"}]),
                ChatChunk("one "),
                ChatChunk("two"),
                ChatChunk(blocks=[use]),
                ChatChunk("three"),
                ChatChunk(usage=ChatUsage(1, 2), stop_reason="tool_use"),
            ]
        )
    )
    assert response.content == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "thinking", "thinking": "again"},
        {"type": "text", "text": "one two"},
        use,
        {"type": "text", "text": "three"},
    ]
    assert response.blocks is response.content
    assert response.text == "one twothree"
    assert (response.usage, response.stop_reason) == (ChatUsage(1, 2), "tool_use")


async def test_adding_up_does_not_change_the_chunks() -> None:
    chunks = [ChatChunk(blocks=[{"type": "text", "text": "a"}]), ChatChunk("b")]
    await collect(stream(chunks))
    assert chunks[0].blocks == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModelError("main"), "model 'main': the model call failed"),
        (
            ModelAuthenticationError("main", "bad key", status=401),
            "model 'main': the vendor refused the credentials (HTTP 401): bad key; check models.main.api_key",
        ),
        (
            ModelRateLimitError("main", status=429, retry_after=3),
            "model 'main': the vendor's rate limit is reached (HTTP 429)",
        ),
    ],
    ids=["plain", "with advice", "rate limit"],
)
def test_a_model_error_says_which_slot_what_happened_and_what_to_do(error: ModelError, text: str) -> None:
    assert str(error) == text
