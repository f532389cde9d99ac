"""The reference: the lines of the HTTP API, written by hand on aiohttp. Its argument is the port."""

import json
import os
import sys
from datetime import UTC, datetime

from aiohttp import web


async def answer(request: web.Request) -> web.StreamResponse:
    """Say each word of the message as a line of its own."""
    body = await request.json()
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson; charset=utf-8"})
    await response.prepare(request)
    for word in body["message"]["content"].split():
        await _write(
            response,
            {
                "id": os.urandom(12).hex(),
                "name": "assistant",
                "role": "assistant",
                "content": word,
                "metadata": {},
                "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            },
        )
    await _write(response, {"metadata": {"done": True, "usage": {"input_tokens": 0, "output_tokens": 0}}})
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, line: dict[str, object]) -> None:
    await response.write((json.dumps(line) + "\n").encode())


def main() -> None:
    """Serve until a signal comes."""
    app = web.Application()
    app.router.add_post("/invoke", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
