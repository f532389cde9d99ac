"""A collector that takes every span and looks at none. Its argument is the port."""

import sys

from aiohttp import web


async def take(request: web.Request) -> web.Response:
    """Read a batch to its end."""
    await request.read()
    return web.Response(body=b"taken")


def main() -> None:
    """Serve until a signal comes."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{path:.*}", take)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
