"""The reference for idle streams: one line on bare aiohttp, and no end. Its argument is the port."""

import asyncio
import json
import sys

from aiohttp import web


async def answer(request: web.Request) -> web.StreamResponse:
    """Say a line, and wait; ``once`` asks for no more than that."""
    body = await request.json()
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson; charset=utf-8"})
    await response.prepare(request)
    await response.write((json.dumps({"content": "waiting"}) + "\n").encode())
    if body["message"]["content"] != "once":
        await asyncio.Event().wait()
    await response.write_eof()
    return response


def main() -> None:
    """Serve until a signal comes."""
    app = web.Application()
    app.router.add_post("/invoke", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
