"""The authenticator of ``server.auth``: bearer tokens, those that are listed first, then JWTs."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from agentscope.auth import Authenticator, Claims, bearer_token
from agentscope.errors import UnauthorizedError, UserError
from agentscope.runtime.settings import AuthSettings
from agentscope_adapters.auth._listed import ListedTokens


class TokenVerifier(Protocol):
    """Checks tokens that are not listed."""

    async def verify(self, token: str) -> Claims:
        """The claims in the token. Raises ``UnauthorizedError`` or ``AuthenticatorUnavailableError``."""
        ...


@asynccontextmanager
async def open_authenticator(settings: AuthSettings, project: Path) -> AsyncGenerator[Authenticator]:
    """The authenticator of a project. Raises ``UserError`` for a file, a key or a key set that can't be used."""
    async with AsyncExitStack() as stack:
        listed = await stack.enter_async_context(ListedTokens.open(settings, project))
        verifier: TokenVerifier | None = None
        if settings.jwt is not None:
            # PyJWT and cryptography take 40 ms to import.
            from agentscope_adapters.auth.jwt import open_verifier

            verifier = await stack.enter_async_context(open_verifier(settings.jwt, project))
        if not listed and verifier is None:
            raise UserError("server.auth: set tokens, tokens_file or jwt: without them nobody could call")
        yield BearerAuthenticator(listed, verifier)


class BearerAuthenticator:
    """Knows callers by the token that they send. ``verifier`` None means that JWTs are not taken."""

    def __init__(self, listed: ListedTokens, verifier: TokenVerifier | None) -> None:
        self._listed = listed
        self._verifier = verifier

    async def authenticate(self, headers: Mapping[str, str]) -> Claims:
        """The claims of whoever has the token in the headers."""
        token = bearer_token(headers)
        claims = await self._listed.find(token)
        if claims is not None:
            return claims
        if self._verifier is not None:
            return await self._verifier.verify(token)
        raise UnauthorizedError("the token is not valid", invalid_token=True)
