"""What handlers find on the application and on a request."""

from aiohttp import web

from agentscope.runtime import Runtime

RUNTIME = web.AppKey("RUNTIME", Runtime)
STARTED = web.AppKey("STARTED", float)
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
