"""The port: who is it that sends a request?"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from agentscope.auth._claims import Claims


@runtime_checkable
class Authenticator(Protocol):
    """Says who sends a request. One object serves all requests at once."""

    async def authenticate(self, headers: Mapping[str, str]) -> Claims:
        """The claims of whoever sent these headers, whose names may be written in any case.

        Raises ``UnauthorizedError`` when nobody is named, or not believably, ``ForbiddenError`` for a caller who may
        not use this server, and ``AuthenticatorUnavailableError`` when that can't be known now. Any other exception
        lets nobody in either: it is logged, and answered as the last of them.
        """
        ...
