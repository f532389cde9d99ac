"""``POST /invoke`` as telemetry sees it: from the head of the request to the end of its answer."""

from collections.abc import Awaitable

from aiohttp import web
from aiohttp.typedefs import Handler

from agentscope.runtime import Watch, outcome_of
from agentscope.server._errors import STATUS_OF_CODE, ApiError, refusal
from agentscope.server._keys import RUNTIME, WATCH


def observed(handler: Handler) -> Handler:
    """The handler, whose request is told of as an invocation when anybody wants to know."""

    def begin(request: web.Request) -> Awaitable[web.StreamResponse]:
        watch = request[RUNTIME].watch("POST /invoke", request.headers)
        # Nobody wants to know, most often: then it is not one more coroutine.
        return handler(request) if watch is None else observe(request, watch)

    async def observe(request: web.Request, watch: Watch) -> web.StreamResponse:
        with watch:
            request[WATCH] = watch
            try:
                response = await handler(request)
            except Exception as error:
                _refuse(watch, error)
                raise
            watch.answer(response.status)
            return response

    return begin


def _refuse(watch: Watch, error: Exception) -> None:
    if isinstance(error, ApiError | web.HTTPException):
        told = refusal(error, "", debug=False)
        watch.answer(told.status, told.code)
    elif not isinstance(error, ConnectionError):
        code = outcome_of(error)
        watch.answer(STATUS_OF_CODE[code], code)
