"""The token of a request, by RFC 6750."""

import re
from collections.abc import Mapping
from typing import Final

from agentscope.errors import UnauthorizedError

_LONGEST: Final = 8192
"""Characters of the header: no token that is meant for one is longer, and what is longer costs nothing."""

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


def bearer_token(headers: Mapping[str, str]) -> str:
    """The token in ``Authorization: Bearer …``: visible ASCII characters, 8 KiB at most.

    Raises ``UnauthorizedError`` when there is none, or what is there can't be one.
    """
    header = headers.get("Authorization", "")
    if len(header) > _LONGEST:
        raise UnauthorizedError("the token is too long", invalid_token=True)
    scheme, _, token = header.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError("no bearer token: send `Authorization: Bearer …`")
    if _VISIBLE.fullmatch(token) is None:
        raise UnauthorizedError("the token is not valid", invalid_token=True)
    return token
