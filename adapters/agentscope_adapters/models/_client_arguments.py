"""The arguments of a vendor's client, and the secrets among them, which no text may hold."""

import base64
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from agentscope.errors import UserError
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.secrets import Secrets


def client_arguments(
    slot: str,
    settings: ModelSettings,
    *,
    credentials: Collection[str],
    variable: str,
    base_url: str | None = None,
    fallback_key: str | None = None,
) -> tuple[dict[str, Any], Secrets]:
    """The keyword arguments of a vendor's client, and the secrets among them.

    ``credentials`` are the client's own arguments of which any one replaces the key: what is written in
    ``client_kwargs`` wins over a key that came from the environment. ``base_url`` is the preset's. Raises
    ``UserError`` when there is no key, naming ``variable``, or one that no HTTP header can hold.
    """
    arguments = dict(settings.client_kwargs)
    given: list[object] = [arguments[name] for name in credentials if arguments.get(name)]
    if not given:
        key = settings.api_key.get_secret_value() if settings.api_key is not None else ""
        if key and (not key.isascii() or not key.isprintable() or " " in key):
            raise UserError(
                f"models.{slot}.api_key: holds a space, a line break or a character that no HTTP header can hold; "
                "copy the key again"
            )
        if not key and fallback_key is None:
            raise UserError(
                f"models.{slot}.api_key: required by provider {settings.provider!r}; "
                f"set it, or the environment variable {variable}"
            )
        arguments["api_key"] = key or fallback_key
        given.append(key)
    if settings.base_url is not None or base_url is not None:
        arguments["base_url"] = settings.base_url or arguments.get("base_url") or base_url
    secrets = [secret for secret in given if isinstance(secret, str)]
    for name in ("base_url", "azure_endpoint"):
        if isinstance(url := arguments.get(name), str):
            arguments[name], login = _without_login(url)
            if login:
                user, _, password = login.partition(":")
                token = base64.b64encode(unquote(login).encode()).decode()
                # A user's name alone is a token; beside a password it is no secret.
                secrets += [login, unquote(login), password or user, unquote(password or user), token]
                # The SDKs and their HTTP client log the URL of each request: the login goes in the header that the
                # client would have made of it.
                headers: dict[str, str] = arguments.get("default_headers") or {}
                arguments["default_headers"] = {"Authorization": f"Basic {token}", **headers}
    return arguments, Secrets(secrets)


def _without_login(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""  # the client says what is wrong with it
    login, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), login
