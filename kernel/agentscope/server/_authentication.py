"""Who sends a request: asked of the authenticator before any handler sees it."""

import logging
from types import TracebackType
from typing import Final

from aiohttp import web

from agentscope.auth import Claims, freeze_claims
from agentscope.errors import AuthenticatorUnavailableError, ForbiddenError, UnauthorizedError
from agentscope.server._keys import REQUEST_ID, RUNTIME

_log = logging.getLogger("agentscope.server")

_FRAMES: Final = 3


async def authenticate(request: web.Request) -> Claims | None:
    """The claims of whoever sends the request; None where everyone may call.

    Raises ``UnauthorizedError``, ``ForbiddenError`` or ``AuthenticatorUnavailableError``: nobody is let in by mistake.
    """
    try:
        authenticator = request[RUNTIME].container.authenticator()
        if authenticator is None:
            return None
        _refuse_two_callers(request)
        return freeze_claims(await authenticator.authenticate(request.headers))
    except (UnauthorizedError, ForbiddenError, AuthenticatorUnavailableError):
        raise
    except Exception as error:
        # Without its text, which may quote the token.
        where = _where(error.__traceback__)
        _log.error("the authenticator failed: %s at %s, request %s", type(error).__name__, where, request[REQUEST_ID])
        raise AuthenticatorUnavailableError(f"the authenticator failed: {type(error).__name__}") from error


def _refuse_two_callers(request: web.Request) -> None:
    if len(request.headers.getall("Authorization", ())) > 1:
        # A proxy in front may have looked at the other one.
        raise UnauthorizedError("more than one Authorization header", invalid_token=True)


def _where(traceback: TracebackType | None) -> str:
    """The innermost places of a traceback, without reading their source files."""
    places: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} in {code.co_name}")
        traceback = traceback.tb_next
    return " > ".join(places[-_FRAMES:])
