"""The rules of ``server.auth``. What they say is shown to users as it is: it must not hold a value."""

from collections.abc import Sequence
from typing import Final

from pydantic import SecretStr

from agentscope.auth import StaticToken, distinct_tokens

# Algorithm -> how many bytes a secret must have, or None where the key is a public one (RFC 7518, section 3.2).
_SECRET_BYTES: Final[dict[str, int | None]] = {
    **{"HS256": 32, "HS384": 48, "HS512": 64},
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    **dict.fromkeys(("ES256", "ES256K", "ES384", "ES512", "EdDSA")),
}


_EMPTY: Final = "is empty; give it a value, or remove the key"


def not_empty(value: str) -> str:
    """A text that says something. Raises ``ValueError`` for an empty one."""
    if not value:
        raise ValueError(_EMPTY)
    return value


def written_token(secret: SecretStr) -> SecretStr:
    """A token of the settings. Raises ``ValueError`` when it can't be one."""
    StaticToken.parse(secret.get_secret_value())
    return secret


def check_tokens(tokens: Sequence[SecretStr]) -> None:
    """Raise ``ValueError`` when one token stands for two callers."""
    try:
        distinct_tokens(StaticToken.parse(token.get_secret_value()) for token in tokens)
    except ValueError as error:
        raise ValueError(f"tokens: {error}") from None


def known_algorithm(name: str) -> str:
    """An algorithm that signs. Raises ``ValueError`` for any other, ``none`` above all."""
    if name not in _SECRET_BYTES:
        raise ValueError(f"is not one of {', '.join(_SECRET_BYTES)}")
    return name


def check_keys(algorithms: Sequence[str], key: SecretStr | None, jwks: str | None) -> None:
    """Raise ``ValueError`` when what JWTs are checked with does not fit together."""
    if not algorithms:
        raise ValueError(f"algorithms: {_EMPTY}")
    if (key is None) == (jwks is None):
        raise ValueError(
            "key: " + ("required, or jwks" if key is None else "not used beside jwks; remove one of them")
        )
    secret = [length for length in map(_SECRET_BYTES.__getitem__, algorithms) if length is not None]
    if 0 < len(secret) < len(algorithms):
        # Whoever has the public key, which is everyone, could sign with it as if it were the secret.
        raise ValueError("algorithms: those with a secret (HS…) can't be used beside those with a public key")
    if key is None:
        if secret:
            raise ValueError("jwks: a key set is public, and HS… algorithms need a secret; give a key instead")
        return
    text = key.get_secret_value()
    if not secret:
        _check_public(text)
    elif "-----BEGIN" in text:
        raise ValueError("key: HS… algorithms need a secret, and this is a key in PEM form")
    elif len(text.encode()) < max(secret):
        raise ValueError(f"key: must have {max(secret)} bytes or more: make one with `openssl rand -hex 64`")


def _check_public(text: str) -> None:
    if "PRIVATE KEY-----" in text:
        raise ValueError("key: is a private key; give the public one, for the server only checks what others signed")
    if "-----BEGIN PUBLIC KEY-----" not in text and "-----BEGIN RSA PUBLIC KEY-----" not in text:
        raise ValueError("key: must be a public key in PEM form, beginning with -----BEGIN PUBLIC KEY-----")
