"""What handlers find on the application and on a request."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agentscope.runtime import Runtime, Watch
from agentscope.server._cors import Cors
from agentscope.server._detached import Detached

RUNTIME = web.AppKey("RUNTIME", Runtime)
CORS = web.AppKey("CORS", Cors)
DETACHED = web.AppKey("DETACHED", Detached)
STARTED = web.AppKey("STARTED", float)
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
CLAIMS = web.RequestKey("CLAIMS", Mapping[str, Any])
WATCH = web.RequestKey("WATCH", Watch)
