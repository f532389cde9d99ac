"""The vendor: an answer of 100 chunks, made once and sent at once. Its arguments are the port and the vendor.

It looks for the end of a request and reads nothing else. As with the real ones, each event is a piece of its own of
the chunked body.
"""

import asyncio
import json
import sys
from typing import Any, Final

_CHUNKS: Final = 100
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Upstream(asyncio.Protocol):
    """One connection, kept open."""

    def __init__(self, answer: list[bytes]) -> None:
        self._answer = answer
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        assert self._transport is not None
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(_LENGTH)[2].split(b"\r\n")[0]):
            self._received = b""
            for piece in self._answer:
                self._transport.write(piece)


def openai_events() -> list[str]:
    """A stream of OpenAI's chat completions, as its API sends it."""
    envelope = {
        "id": "chatcmpl-CkD0Q1VvT0u5HqbFvJ8dK2LwZpXyR",
        "object": "chat.completion.chunk",
        "created": 1764758400,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_b547601dbd",
    }

    def event(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _data({**envelope, "choices": [choice], "usage": None, "obfuscation": "x5kLw8a"})

    usage = {"prompt_tokens": 9, "completion_tokens": _CHUNKS, "total_tokens": 9 + _CHUNKS}
    return [
        event({"role": "assistant", "content": ""}),
        *(event({"content": " streams"}) for _ in range(_CHUNKS)),
        event({}, "stop"),
        _data({**envelope, "choices": [], "usage": usage}),
        "data: [DONE]\n\n",
    ]


def anthropic_events() -> list[str]:
    """A stream of Anthropic's Messages API, as it sends it."""
    message: dict[str, Any] = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
    }
    usage = {"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    delta = {"type": "text_delta", "text": " streams"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for _ in range(_CHUNKS)),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": _CHUNKS},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\n{_data(event)}" for event in events]


def _data(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n"


async def _serve(port: int, events: list[str]) -> None:
    pieces = [f"{len(event):x}\r\n{event}\r\n".encode() for event in events]
    answer = [_HEAD + pieces[0], *pieces[1:-1], pieces[-1] + b"0\r\n\r\n"]
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(answer), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), {"openai": openai_events, "anthropic": anthropic_events}[sys.argv[2]]()))
