"""The rules of ``platform``. What they say is shown to users as it is: it must not hold a value."""

import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from agentscope.runtime.settings._access import not_empty

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


def base_url(value: str | None) -> str | None:
    """A URL below which others are. Raises ``ValueError`` for one with a fragment, which no request carries."""
    if value is not None and "#" in value:
        raise ValueError("must not have a #; write %23 for one in the path")
    return value


def path_segment(value: str) -> str:
    """A text that can be one segment of a URL's path. Raises ``ValueError`` for one that leads elsewhere."""
    if value in {".", ".."}:
        # Whether it is encoded or not: a URL with it is another URL.
        raise ValueError("must not be . or .., which lead elsewhere in a URL")
    return not_empty(value)


def sendable_token(secret: SecretStr) -> SecretStr:
    """A token for a header. Raises ``ValueError`` for what no header can hold."""
    if _VISIBLE.fullmatch(secret.get_secret_value()) is None:
        raise ValueError(
            "holds a blank, a line break or a character that no HTTP header can hold; copy the token again"
        )
    return secret


def check_one_login(endpoint: str | None, token: SecretStr | None) -> None:
    """Raise ``ValueError`` when a URL brings a login, and there is a token: a request has one ``Authorization``."""
    if token is not None and "@" in urlsplit(endpoint or "").netloc:
        raise ValueError("token: not used beside a login in the endpoint; remove one of them")
