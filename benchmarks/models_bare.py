"""The reference of the models: a handler on aiohttp that loops over the SDK's stream and writes each chunk.

Its arguments are its port, the vendor and the vendor's port. Asked for "cpu", it says the seconds of processor time
that the process has used.
"""

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.typedefs import Handler

Talk = Callable[[str], AsyncIterator[str]]
"""The texts of an answer to a message."""


def openai(url: str) -> Talk:
    """As OpenAI's own documentation reads a stream."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="of-no-use", base_url=url)

    async def talk(message: str) -> AsyncIterator[str]:
        stream = await client.chat.completions.create(
            model="a-model",
            messages=[{"role": "user", "content": message}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            async for event in stream:
                if event.choices and event.choices[0].delta.content:
                    yield event.choices[0].delta.content

    return talk


def anthropic(url: str) -> Talk:
    """As Anthropic's own documentation reads a stream."""
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(api_key="of-no-use", base_url=url)

    async def talk(message: str) -> AsyncIterator[str]:
        stream = await client.messages.create(
            model="a-model", max_tokens=4096, messages=[{"role": "user", "content": message}], stream=True
        )
        async with stream:
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield event.delta.text

    return talk


def make_handler(talk: Talk) -> Handler:
    """The handler that says each text as a line of its own."""

    async def answer(request: web.Request) -> web.StreamResponse:
        message = (await request.json())["message"]["content"]
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson; charset=utf-8"})
        await response.prepare(request)
        if message == "cpu":
            await _write(response, {"content": str(time.process_time())})
        else:
            async for text in talk(message):
                await _write(
                    response,
                    {
                        "id": os.urandom(12).hex(),
                        "name": "assistant",
                        "role": "assistant",
                        "content": text,
                        "metadata": {},
                        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    },
                )
        await _write(response, {"metadata": {"done": True, "usage": {"input_tokens": 9, "output_tokens": 100}}})
        await response.write_eof()
        return response

    return answer


async def _write(response: web.StreamResponse, line: dict[str, object]) -> None:
    await response.write((json.dumps(line) + "\n").encode())


def main() -> None:
    """Serve until a signal comes."""
    port, vendor, upstream = int(sys.argv[1]), sys.argv[2], f"http://127.0.0.1:{sys.argv[3]}"
    app = web.Application()
    app.router.add_post("/invoke", make_handler({"openai": openai, "anthropic": anthropic}[vendor](upstream)))
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
