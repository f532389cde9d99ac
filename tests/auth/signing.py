"""Keys, tokens that are signed with them, and key sets."""

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ISSUER = "https://issuer.example.com"
AUDIENCE = "agents"
SECRET = "a secret of the issuer and the server alone, 64 bytes long, or so"

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | str
_ALGORITHMS = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256", ed25519.Ed25519PrivateKey: "EdDSA"}


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def claims(**changes: Any) -> dict[str, Any]:
    """Valid claims; a change to None takes one out."""
    valid = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600, "iat": time.time() - 1}
    return {name: value for name, value in {**valid, **changes}.items() if value is not None}


def sign(key: Key, *, algorithm: str | None = None, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """A JWT of valid claims with these changes."""
    name = algorithm or next((name for kind, name in _ALGORITHMS.items() if isinstance(key, kind)), "HS256")
    return jwt.encode(claims(**changes), key, name, headers=headers)


def forge(header: object, payload: object, signature: bytes = b"") -> str:
    """What no library signs: any header, any payload, any signature."""
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str | None = None, **fields: Any) -> dict[str, Any]:
    """The public half of a key, as a key set holds it."""
    handler = jwt.get_algorithm_by_name("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
    named = {} if kid is None else {"kid": kid}
    return {**handler.to_jwk(key.public_key(), as_dict=True), **named, **fields}


def key_set(*entries: object) -> bytes:
    return json.dumps({"keys": entries}).encode()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
