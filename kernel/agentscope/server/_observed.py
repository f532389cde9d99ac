"""``POST /invoke`` as telemetry sees it: from the head of the request to the end of its answer."""

from aiohttp import web
from aiohttp.typedefs import Handler

from agentscope.runtime import Watch, outcome_of
from agentscope.server._errors import STATUS_OF_CODE, ApiError, refusal
from agentscope.server._keys import RUNTIME, WATCH


def observed(handler: Handler) -> Handler:
    """The handler, whose request is told of as an invocation when anybody wants to know."""

    async def observing(request: web.Request) -> web.StreamResponse:
        runtime = request[RUNTIME]
        watch = runtime.watch("POST /invoke", request.headers)
        if watch is None:
            return await handler(request)
        with watch:
            request[WATCH] = watch
            try:
                response = await handler(request)
            except Exception as error:
                _refuse(watch, error)
                raise
            watch.answer(response.status)
            return response

    return observing


def _refuse(watch: Watch, error: Exception) -> None:
    if isinstance(error, ApiError | web.HTTPException):
        told = refusal(error, "", debug=False)
        watch.answer(told.status, told.code)
    elif not isinstance(error, ConnectionError):
        code = outcome_of(error)
        watch.answer(STATUS_OF_CODE[code], code)
