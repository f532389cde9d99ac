"""The settings of who may call: what does not protect is refused at start, and no secret is shown."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from agentscope.runtime.settings import AuthSettings, describe
from auth.signing import SECRET, private_pem, public_pem
from settings.project import Project

TOKEN = "hunter2-hunter2-hunter2"
SHORT = "a token must have 16 characters or more, for fewer can be guessed: make one with `openssl rand -hex 32`"
FORM = "must be TOKEN or NAME TOKEN, without blanks around it"


@pytest.fixture
def project(tmp_path: Path, key: RSAPrivateKey) -> Project:
    """A project, with the keys that a configuration may name."""
    return Project(tmp_path).write(public_pem(key), "public.pem").write(private_pem(key), "private.pem")


def auth(text: str) -> str:
    return f"server: {{auth: {{{text}}}}}"


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("tokens: [hunter2]", "tokens[0]", SHORT),
        ("tokens: [alice hunter2]", "tokens[0]", SHORT),
        (f"tokens: ['the-name-of-alice ', {TOKEN}]", "tokens[0]", FORM),
        (f"tokens: [alice bob {TOKEN}]", "tokens[0]", FORM),
        (f"tokens: [{TOKEN}, 'alice {TOKEN}']", "tokens", None),
        ("tokens: ['']", "tokens[0]", "is empty; give it a value, or remove the key"),
        ("tokens: []", "tokens", "is empty; give it a token, or remove the key"),
        ("tokens: ", "tokens", "is empty; give it a token, or remove the key"),
        (
            "tokens: [häßliches-geheimnis]",
            "tokens[0]",
            "a token may hold letters, digits and the signs of ASCII alone",
        ),
        (f"tokens: [{TOKEN}], provider: x", "provider", None),
        ("provider: x, tokens_file: y", "provider", None),
        ("provider: ''", "provider", "is empty; give it a value, or remove the key"),
        ("options: {a: hunter2}", "options", "are for a provider, and none is named"),
        ("jwt: {}", "jwt.algorithms", "required and missing; add it"),
        (f"jwt: {{algorithms: [], key: {TOKEN}}}", "jwt.algorithms", "is empty; give it a value, or remove the key"),
        ("jwt: {algorithms: [none], key: hunter2}", "jwt.algorithms[0]", None),
        ("jwt: {algorithms: [hs256], key: hunter2}", "jwt.algorithms[0]", None),
        ("jwt: {algorithms: [RS256]}", "jwt.key", "required, or jwks"),
        ("jwt: {algorithms: [RS256], key: {file: public.pem}, jwks: keys.json}", "jwt.key", None),
        (
            "jwt: {algorithms: [HS256, RS256], key: {file: public.pem}}",
            "jwt.algorithms",
            "those with a secret (HS…) can't be used beside those with a public key",
        ),
        (
            "jwt: {algorithms: [HS256], key: {file: public.pem}}",
            "jwt.key",
            "HS… algorithms need a secret, and this is a key in PEM form",
        ),
        (f"jwt: {{algorithms: [HS256], key: {TOKEN}}}", "jwt.key", None),
        (f"jwt: {{algorithms: [HS256, HS384], key: {TOKEN}{TOKEN[:17]}}}", "jwt.key", None),
        ("jwt: {algorithms: [HS256], jwks: keys.json}", "jwt.jwks", None),
        (f"jwt: {{algorithms: [RS256], key: {TOKEN}}}", "jwt.key", None),
        ("jwt: {algorithms: [RS256], key: {file: private.pem}}", "jwt.key", None),
        ("jwt: {algorithms: [RS256], jwks: 'ftp://hunter2@x'}", "jwt.jwks", "must start with http:// or https://"),
        ("jwt: {algorithms: [RS256], jwks: ''}", "jwt.jwks", None),
        ("jwt: {algorithms: [RS256], jwks: k, issuer: ''}", "jwt.issuer", None),
        ("jwt: {algorithms: [RS256], jwks: k, audience: ''}", "jwt.audience", None),
        ("jwt: {algorithms: [RS256], jwks: k, leeway: -1}", "jwt.leeway", "must be 0.0 or more"),
    ],
)
def test_what_does_not_protect_is_refused_with_the_reason(
    project: Project, text: str, at: str, message: str | None
) -> None:
    problem = project.write(auth(text)).problem()
    assert problem.key == f"server.auth.{at}"
    assert problem.message == message or message is None
    assert "hunter2" not in problem.message


@pytest.mark.parametrize("text", ["auth: ", "auth: {}", "auth: {tokens_file: null}"])
def test_a_section_with_nothing_in_it_is_a_mistake(project: Project, text: str) -> None:
    problem = project.write(f"server: {{{text}}}").problem()
    assert problem.key == "server.auth"
    assert "is empty" in problem.message


@pytest.mark.parametrize(
    "text",
    [
        f"tokens: [{TOKEN}]",
        "tokens_file: tokens",
        "provider: ours, options: {a: [1, {b: c}]}",
        "jwt: {algorithms: [RS256, PS256], key: {file: public.pem}}",
        f"jwt: {{algorithms: [HS256, HS512], key: '{SECRET}'}}",
        "jwt: {algorithms: [ES256, EdDSA], jwks: 'https://example.com/keys', issuer: i, audience: a, leeway: 5}",
    ],
)
def test_what_protects_loads(project: Project, text: str) -> None:
    assert project.write(auth(text)).load().settings.server.auth.is_on


SECRETS = [
    f"tokens: ['alice {TOKEN}'], jwt: {{algorithms: [HS256], key: {TOKEN}{TOKEN}}}",
    "jwt: {algorithms: [RS256], jwks: 'https://user:hunter2@example.com/keys?token=hunter2'}",
    "provider: ours, options: {directory: 'ldap://hunter2', deep: {er: [hunter2]}, number: 1}",
]


@pytest.mark.parametrize("text", SECRETS, ids=["tokens", "key set", "options"])
def test_nothing_that_protects_is_shown(project: Project, text: str) -> None:
    loaded = project.write(auth(text)).load()
    shown = {entry.key: entry.value for entry in describe(loaded)}
    assert "hunter2" not in json.dumps(shown)
    assert "hunter2" not in repr(loaded) + repr(loaded.settings) + str(loaded.settings)


def test_the_tokens_may_come_from_the_environment(project: Project) -> None:
    project.environment["AGENTSCOPE_SERVER__AUTH__TOKENS"] = json.dumps([f"alice {TOKEN}"])
    assert project.write("").load().settings.server.auth.is_on


def test_an_empty_variable_does_not_make_the_name_the_token(project: Project) -> None:
    project.environment["TOKEN"] = ""
    assert project.write(auth("tokens: ['a-name-of-16-chars ${TOKEN}']")).problem().message == FORM


def test_settings_made_in_code_are_checked_as_well() -> None:
    with pytest.raises(ValueError, match="tokens: is empty"):
        AuthSettings(tokens=())
