"""Keys that take a tenth of a second to make, and a server of key sets."""

from collections.abc import AsyncGenerator

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from auth.key_server import KeyServer
from auth.signing import rsa_key


@pytest.fixture(scope="session")
def key() -> RSAPrivateKey:
    """The issuer's."""
    return rsa_key()


@pytest.fixture(scope="session")
def other_key() -> RSAPrivateKey:
    """Another one, which the issuer may come to use."""
    return rsa_key()


@pytest.fixture
async def key_server() -> AsyncGenerator[KeyServer]:
    """A server that answers with an empty key set until it is told otherwise."""
    async with KeyServer.running() as server:
        yield server
