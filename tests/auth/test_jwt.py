"""JWTs: who has one that the issuer signed for this server may call, until it expires; all else is refused."""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from agentscope.auth import Authenticator
from agentscope.errors import UnauthorizedError, UserError
from agentscope.runtime.settings import AuthSettings
from agentscope_adapters.auth.bearer import open_authenticator
from agentscope_adapters.auth.jwt import read_key_set
from auth.signing import (
    AUDIENCE,
    ISSUER,
    SECRET,
    Key,
    bearer,
    claims,
    ec_key,
    forge,
    jwk,
    key_set,
    public_pem,
    rsa_key,
    sign,
)
from auth.test_tokens import Tells, refusal, who
from serving import served


def settings(key: Key, /, **changes: Any) -> AuthSettings:
    """Those that take what ``sign`` makes with that key."""
    found: dict[str, Any] = {"algorithms": ["HS256"], "key": SECRET}
    if not isinstance(key, str):
        algorithm = "RS256" if isinstance(key, RSAPrivateKey) else "ES256"
        found = {"algorithms": ["EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else algorithm]}
        found["key"] = public_pem(key)
    return AuthSettings.model_validate({"jwt": {**found, "issuer": ISSUER, "audience": AUDIENCE, **changes}})


@asynccontextmanager
async def opened(found: AuthSettings, project: Path = Path()) -> AsyncGenerator[Authenticator]:
    async with open_authenticator(found, project) as authenticator:
        yield authenticator


async def told(authenticator: Authenticator, token: str) -> str:
    """What whoever sends that token is told when it is refused."""
    with pytest.raises(UnauthorizedError) as caught:
        await authenticator.authenticate(bearer(token))
    assert caught.value.challenge == 'Bearer error="invalid_token"'
    assert not any(part in str(caught.value) for part in token.split(".") if len(part) > 8)
    return str(caught.value)


async def test_the_claims_reach_the_app(key: RSAPrivateKey) -> None:
    auth = {"jwt": {"algorithms": ["RS256"], "key": public_pem(key), "issuer": ISSUER, "audience": AUDIENCE}}
    sent = claims(roles=["admin"], realm={"name": "a"})
    async with served(Tells, server={"auth": {**auth, "tokens": ["bob bobs-token-0123456"]}}) as server:
        assert await who(server, bearer(jwt.encode(sent, key, "RS256"))) == sent
        assert await who(server, bearer("bobs-token-0123456")) == {"sub": "bob"}
        expired = sign(key, exp=time.time() - 1)
        assert await refusal(server, bearer(expired)) == (
            401,
            "UNAUTHORIZED",
            "the token has expired",
            'Bearer error="invalid_token"',
        )


@pytest.mark.parametrize("make", [ec_key, ed25519.Ed25519PrivateKey.generate, lambda: SECRET])
async def test_each_kind_of_key_signs(make: Any) -> None:
    key = make()
    async with opened(settings(key)) as authenticator:
        assert (await authenticator.authenticate(bearer(sign(key))))["sub"] == "alice"


async def test_the_claims_stay_as_they_are(key: RSAPrivateKey) -> None:
    async with opened(settings(key)) as authenticator:
        found: Any = await authenticator.authenticate(bearer(sign(key, roles=["user"], realm={"a": 1})))
    with pytest.raises(TypeError):
        found.update(sub="mallory")
    with pytest.raises(TypeError):
        found["roles"].append("admin")
    with pytest.raises(TypeError):
        found["realm"].update(a=2)


NOT_VALID, EXPIRED, EARLY = "the token is not valid", "the token has expired", "the token is not valid yet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"exp": -1}, EXPIRED, id="expired"),
        pytest.param({"exp": None}, NOT_VALID, id="no end"),
        pytest.param({"exp": "soon"}, NOT_VALID, id="an end that is no time"),
        pytest.param({"nbf": 60}, EARLY, id="not begun"),
        pytest.param({"iat": 60}, EARLY, id="issued in the future"),
        pytest.param({"iss": "https://mallory.example.com"}, NOT_VALID, id="another issuer"),
        pytest.param({"iss": f"{ISSUER}/"}, NOT_VALID, id="nearly the issuer"),
        pytest.param({"iss": None}, NOT_VALID, id="no issuer"),
        pytest.param({"aud": "another"}, NOT_VALID, id="another audience"),
        pytest.param({"aud": ["another", "one"]}, NOT_VALID, id="other audiences"),
        pytest.param({"aud": None}, NOT_VALID, id="no audience"),
        pytest.param({"aud": {AUDIENCE: 1}}, NOT_VALID, id="an audience of another form"),
        pytest.param({"sub": 1}, NOT_VALID, id="a subject that is no text"),
    ],
)
async def test_claims_that_do_not_hold_are_refused(changes: dict[str, Any], message: str) -> None:
    now = time.time()
    times = {name: now + value for name, value in changes.items() if isinstance(value, int) and name != "sub"}
    async with opened(settings(SECRET)) as authenticator:
        assert await told(authenticator, forge_signed(claims(**{**changes, **times}))) == message


def forge_signed(payload: object, header: object = None) -> str:
    """A token that is signed well, whatever is in it."""
    unsigned = forge(header or {"alg": "HS256", "typ": "JWT"}, payload).removesuffix(".")
    signature = hmac.new(SECRET.encode(), unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_one_of_several_audiences_is_enough() -> None:
    async with opened(settings(SECRET)) as authenticator:
        assert await authenticator.authenticate(bearer(sign(SECRET, aud=["another", AUDIENCE])))


async def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    now = time.time()
    async with opened(settings(SECRET, leeway=60)) as authenticator:
        for name, time_of_it in (("exp", now - 30), ("nbf", now + 30), ("iat", now + 30)):
            late: dict[str, Any] = {name: time_of_it}
            assert await authenticator.authenticate(bearer(sign(SECRET, **late)))
        assert await told(authenticator, sign(SECRET, exp=now - 90)) == EXPIRED
        assert await told(authenticator, sign(SECRET, nbf=now + 90)) == EARLY


async def test_without_an_issuer_any_is_taken_and_without_an_audience_none_but_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(settings(SECRET, issuer=None, audience=None)) as authenticator:
        assert await authenticator.authenticate(bearer(sign(SECRET, aud=None, iss="anyone")))
        assert await told(authenticator, sign(SECRET)) == NOT_VALID
    assert "server.auth.jwt.audience is not set" in caplog.text


def unsigned(header: dict[str, Any], signature: bytes = b"") -> str:
    return forge(header, claims(), signature)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(unsigned({"alg": "none"}), id="none"),
        pytest.param(unsigned({"alg": "None"}, b"x"), id="none in another case"),
        pytest.param(unsigned({}), id="no algorithm"),
        pytest.param(unsigned({"alg": ["HS256"]}), id="an algorithm of another form"),
        pytest.param(unsigned({"alg": "HS256"}), id="no signature"),
        pytest.param(unsigned({"alg": "HS256"}, b"x" * 32), id="another signature"),
        pytest.param(sign("another secret that has 32 bytes"), id="another secret"),
        pytest.param(sign(SECRET, algorithm="HS512"), id="another algorithm of the same kind"),
        pytest.param(
            forge_signed(claims(), {"alg": "HS256", "crit": ["exp"], "exp": 1}), id="what must be understood"
        ),
        pytest.param(forge_signed(claims(), {"alg": "HS256", "crit": ["b64"], "b64": True}), id="what PyJWT knows"),
        pytest.param(forge_signed(claims(), {"alg": "HS256", "kid": 1}), id="a name that is no text"),
        pytest.param(forge_signed([claims()]), id="claims of another form"),
        pytest.param(forge(["alg"], claims()), id="a header of another form"),
        pytest.param(f"{'[' * 3000}.a.b", id="brackets"),
        pytest.param(base64.urlsafe_b64encode(b"[" * 6000).decode() + ".a.b", id="a deep header"),
        pytest.param(sign(SECRET).rpartition(".")[0], id="two parts"),
        pytest.param(sign(SECRET) + ".x", id="four parts"),
        pytest.param(sign(SECRET) + "!", id="a sign too much"),
        pytest.param("...", id="dots"),
        pytest.param("x", id="no JWT"),
    ],
)
async def test_what_was_not_signed_so_is_refused(token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(settings(SECRET)) as authenticator:
        assert await told(authenticator, token) == NOT_VALID
    assert not any(part in caplog.text for part in token.split(".") if len(part) > 8)


async def test_the_public_key_is_no_secret_to_sign_with(key: RSAPrivateKey) -> None:
    header, payload = forge({"alg": "HS256", "typ": "JWT"}, claims()).split(".")[:2]
    signature = hmac.new(public_pem(key).encode(), f"{header}.{payload}".encode(), hashlib.sha256).digest()
    token = f"{header}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    async with opened(settings(key)) as authenticator:
        assert await told(authenticator, token) == NOT_VALID


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
async def test_a_key_that_a_token_brings_is_not_believed(
    key: RSAPrivateKey, other_key: RSAPrivateKey, tmp_path: Path, name: str
) -> None:
    (tmp_path / "keys.json").write_bytes(key_set(jwk(key, "k")))
    header = {"kid": "k", name: jwk(other_key, "k") if name == "jwk" else "https://mallory.example.com/keys"}
    for found in (settings(key), settings(key, key=None, jwks="keys.json")):
        async with opened(found, tmp_path) as authenticator:
            assert await told(authenticator, sign(other_key, headers=header)) == NOT_VALID
            assert await authenticator.authenticate(bearer(sign(key, headers={"kid": "k"})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": public_pem(ec_key())}, "is no key for RS256"),
        ({"key": public_pem(rsa_key(1024))}, "below the minimum recommended size of 2048 bits"),
        ({"key": "-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----"}, "is no key for RS256"),
        ({"algorithms": ["RS256", "ES256"]}, "is no key for ES256"),
        ({"algorithms": ["ES384"], "key": public_pem(ec_key())}, "is no key for ES384"),
    ],
)
async def test_a_key_that_does_not_fit_is_an_error_at_start(
    key: RSAPrivateKey, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"^server\.auth\.jwt\.key: .*{message}") as caught:
        async with opened(settings(key, **changes)):
            pass
    assert "hunter2" not in str(caught.value)


def test_a_key_set_gives_the_key_of_a_name_for_an_algorithm(key: RSAPrivateKey, other_key: RSAPrivateKey) -> None:
    curve = ec_key()
    keys = read_key_set(
        key_set(
            {"kty": "oct", "k": "AAAA", "kid": "secret"},
            {"kty": "RSA", "n": 1, "kid": "garbage"},
            {"kty": ["RSA"]},
            "no key",
            jwk(key, "a"),
            jwk(other_key, "a"),
            jwk(curve, "a", use="sig", key_ops=["verify"]),
            jwk(key, "encrypts", use="enc"),
            jwk(key, "signs", key_ops=["sign"]),
            jwk(key, "other algorithm", alg="RS512"),
            jwk(key, "unnamed operations", key_ops=1),
            jwk(ec.generate_private_key(ec.SECP384R1()), "other curve"),
            jwk(rsa_key(1024), "weak"),
            {**jwk(key, "k"), "d": "AQAB"},
        ),
        ["RS256", "ES256"],
    )
    found = keys.find("a", "RS256")
    assert found is not None
    assert found.public_numbers() == key.public_key().public_numbers()
    on_curve = keys.find("a", "ES256")
    assert on_curve is not None
    assert on_curve.public_numbers() == curve.public_key().public_numbers()
    for name in ("secret", "garbage", "encrypts", "signs", "other algorithm", "unnamed operations", "other curve"):
        assert (keys.find(name, "RS256"), keys.find(name, "ES256")) == (None, None)
    assert keys.find("weak", "RS256") is None
    assert keys.find("k", "RS256") is None
    assert keys.find("a", "RS512") is None
    # Without a name only what can't be mistaken is meant.
    assert keys.find(None, "RS256") is None
    assert keys.find(None, "ES256") is not None


def test_a_key_without_a_name_is_for_tokens_that_name_none(key: RSAPrivateKey) -> None:
    keys = read_key_set(key_set(jwk(key)), ["RS256", "PS256"])
    assert keys.find(None, "RS256") is not None
    assert keys.find(None, "PS256") is not None
    assert keys.find("", "RS256") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hunter2", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it is no JWK set"),
        (b"{}", "it is no JWK set"),
        (b'{"keys": {}}', "it is no JWK set"),
        (b'{"keys": []}', "it holds no public key for RS256"),
        (b'{"keys": [{"kty": "oct", "k": "aHVudGVyMg"}]}', "it holds no public key for RS256"),
    ],
)
async def test_a_file_without_keys_is_an_error_at_start(
    key: RSAPrivateKey, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"^server\.auth\.jwt\.jwks: .*{message}"):
        async with opened(settings(key, key=None, jwks="keys.json"), tmp_path):
            pass


async def test_keys_in_a_file_rotate(key: RSAPrivateKey, other_key: RSAPrivateKey, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk(key, "old")))
    async with served(
        Tells, server={"auth": {"jwt": {"algorithms": ["RS256"], "jwks": str(path), "audience": AUDIENCE}}}
    ) as server:

        async def status(token: str) -> int:
            return (await server.client.get("/sessions", headers=bearer(token))).status

        async def until(expected: int, token: str) -> None:
            async with asyncio.timeout(20):
                while await status(token) != expected:  # noqa: ASYNC110 - the file is looked at when someone calls
                    await asyncio.sleep(0.05)

        old, new = sign(key, headers={"kid": "old"}), sign(other_key, headers={"kid": "new"})
        assert (await status(old), await status(new)) == (200, 401)
        path.write_bytes(key_set(jwk(other_key, "new")))
        await until(200, new)
        assert await status(old) == 401
        path.write_bytes(b"hunter2")
        await until(503, new)
