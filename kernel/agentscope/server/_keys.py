"""What handlers find on the application and on a request."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agentscope.runtime import Runtime, Service, Watch
from agentscope.server._cors import Cors
from agentscope.server._detached import Detached

SERVICE = web.AppKey("SERVICE", Service)
"""The service of an application; the runtime of the moment is its ``runtime``."""

CORS = web.AppKey("CORS", Cors)
DETACHED = web.AppKey("DETACHED", Detached)
STARTED = web.AppKey("STARTED", float)

RUNTIME = web.RequestKey("RUNTIME", Runtime)
"""The runtime that took new invocations when the request came. It is held until the answer is over."""

REQUEST_ID = web.RequestKey("REQUEST_ID", str)
CLAIMS = web.RequestKey("CLAIMS", Mapping[str, Any])
WATCH = web.RequestKey("WATCH", Watch)
