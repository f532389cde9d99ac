"""``${VAR}``, secrets in files, and the vendors' own variables."""

import pytest

from agentscope.runtime.settings import Problem
from settings.project import Project


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("${HOST}", "example.com", id="the whole text"),
        pytest.param("a.${HOST}.${TLD}", "a.example.com.org", id="within a text"),
        pytest.param("$${HOST}", "${HOST}", id="escaped"),
        pytest.param("$$${HOST}", "$${HOST}", id="a dollar before an escape"),
        pytest.param("$HOST $5", "$HOST $5", id="without braces"),
        pytest.param("${QUOTING}", "${HOST}", id="not twice"),
    ],
)
def test_variables_are_replaced_in_texts(project: Project, text: str, value: str) -> None:
    project.environment.update(HOST="example.com", QUOTING="${HOST}", TLD="org")
    assert project.write(f"server: {{host: '{text}'}}").load().settings.server.host == value


def test_a_replaced_text_becomes_what_its_key_needs(project: Project) -> None:
    project.environment.update(PORT="9000", DEBUG="true", HOST="1.5")
    server = project.write("server: {port: '${PORT}', debug: '${DEBUG}', host: '${HOST}'}").load().settings.server
    assert (server.port, server.debug, server.host) == (9000, True, "1.5")


def test_a_replaced_text_that_is_no_number_is_reported_at_its_place(project: Project) -> None:
    project.environment.update(PORT="hunter2")
    problem = project.write("server: {port: '${PORT}'}").problem()
    assert problem == Problem("agentapp.yaml:1:16", "server.port", "must be a whole number")


def test_the_environment_comes_before_dotenv(project: Project) -> None:
    project.write("HOST=dotenv\nTLD=dotenv\n", ".env").environment["HOST"] = "process"
    assert project.write("server: {host: '${HOST} ${TLD}'}").load().settings.server.host == "process dotenv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("${A}", "environment variable A is not set; export it or add it to .env", id="one"),
        pytest.param(
            "${A} ${B} ${A}", "environment variables A, B are not set; export them or add them to .env", id="two"
        ),
        pytest.param(
            "${A:-hunter2}",
            "${A…}: only ${A} is read; a default belongs in the file, in place of the variable",
            id="a default",
        ),
        pytest.param("${A", "${ without its }; write $${ for a literal ${", id="never closed"),
        pytest.param(
            "${1}", "${…} must hold the name of a variable; write $${…} for a literal ${…}", id="no variable"
        ),
    ],
)
@pytest.mark.parametrize("key", ["host", "port", "debug"])
def test_a_reference_that_can_not_be_replaced_is_one_problem(
    project: Project, key: str, text: str, message: str
) -> None:
    problem = project.write(f"server:\n  {key}: '{text}'").problem()
    assert (problem.key, problem.message) == (f"server.{key}", message)


def test_an_unset_variable_is_all_that_is_said_about_a_required_key(project: Project) -> None:
    project.write("models: {m: {provider: openai, model: '${MODEL}'}}\nmcp_servers: {s: {transport: '${T}'}}")
    assert [problem.key for problem in project.problems()] == ["models.m.model", "mcp_servers.s.transport"]


def test_keys_and_other_sources_are_not_replaced(project: Project) -> None:
    project.write("models: {m: {provider: offline, generate_kwargs: {'${A}': 1}}}")
    project.environment["AGENTSCOPE_MODELS__M__GENERATE_KWARGS__B"] = "${A}"
    loaded = project.load("models.m.generate_kwargs.c=${A}")
    assert loaded.settings.models["m"].generate_kwargs == {"${A}": 1, "b": "${A}", "c": "${A}"}


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"key", "key"), (b"key\n", "key"), (b"key\r\n", "key"), (b"key\n\n", "key\n"), (b" key", " key")],
)
def test_a_secret_may_be_in_a_file_of_which_one_line_break_is_dropped(
    project: Project, content: bytes, secret: str
) -> None:
    project.write(content, "key.txt").write("models: {m: {provider: offline, api_key: {file: key.txt}}}")
    loaded = project.load()
    api_key = loaded.settings.models["m"].api_key
    assert api_key is not None
    assert api_key.get_secret_value() == secret
    assert loaded.origin("models.m.api_key") == "agentapp.yaml:1:49"


def test_every_secret_may_be_in_a_file(project: Project) -> None:
    project.write("hidden", "secret")
    project.write("""
        models: {m: {provider: offline, api_key: {file: secret}}}
        session: {url: {file: "${NAME}"}}
        platform: {token: {file: secret}}
        mcp_servers:
          s: {transport: stdio, command: c, env: {TOKEN: {file: secret}}, headers: {Authorization: {file: secret}}}
        """).environment["NAME"] = "secret"
    settings = project.load().settings
    secrets = [settings.models["m"].api_key, settings.session.url, settings.platform.token]
    secrets += [*settings.mcp_servers["s"].env.values(), *settings.mcp_servers["s"].headers.values()]
    assert [secret.get_secret_value() for secret in secrets if secret is not None] == ["hidden"] * 5
    assert "hidden" not in repr(settings)


def test_the_secrets_of_access_checks_may_be_in_files(project: Project) -> None:
    project.write("server: {auth: {tokens: [a, {file: nowhere}], jwt: {algorithms: [HS256], key: {file: nowhere}}}}")
    assert [problem.key for problem in project.problems()] == [
        "server.auth.tokens[0]",
        "server.auth.tokens[1]",
        "server.auth.jwt.key",
    ]


@pytest.mark.parametrize("source", ["variable", "assignment"])
def test_a_secret_file_from_elsewhere_takes_the_place_of_a_text(project: Project, source: str) -> None:
    project.write("b", "secret").write("session: {url: a}")
    assignments: list[str] = []
    if source == "variable":
        project.environment["AGENTSCOPE_SESSION__URL__FILE"] = "secret"
    else:
        assignments = ["session.url.file=secret"]
    url = project.load(*assignments).settings.session.url
    assert url is not None
    assert url.get_secret_value() == "b"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        pytest.param(
            "nowhere",
            None,
            "the secret's file nowhere can't be read: no such file or directory; mend it or its path",
            id="missing",
        ),
        pytest.param(
            ".", None, "the secret's file . can't be read: is a directory; mend it or its path", id="a folder"
        ),
        pytest.param("s", b"\n", "the secret's file s is empty", id="empty"),
        pytest.param(
            "s", b"\xff", "the secret's file s can't be read: not UTF-8 text; mend it or its path", id="bytes"
        ),
        pytest.param("s", b"x" * 70_000, "the secret's file s is larger than 65536 bytes", id="large"),
        pytest.param("[]", None, "must be a single value, not a list", id="a list"),
        pytest.param("5", None, "must be the path of a file", id="a number"),
        pytest.param('"a\\0b"', None, "must be the path of a file", id="no path"),
        pytest.param("", None, "must be the path of a file", id="nothing"),
    ],
)
def test_a_secret_file_that_can_not_be_used_is_one_problem(
    project: Project, file: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        project.write(content, "s")
    assert project.write(f"session: {{url: {{file: {file}}}}}").problem().message == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{}", "must be a text, or {file: PATH}"),
        ("{flie: nowhere, x: 1}", "unknown key; did you mean file?"),
    ],
)
def test_a_mapping_that_names_no_file_is_no_secret(project: Project, value: str, message: str) -> None:
    assert message in [problem.message for problem in project.write(f"session: {{url: {value}}}").problems()]


@pytest.mark.parametrize(
    ("provider", "variables", "key", "origin"),
    [
        pytest.param("openai", ["OPENAI_API_KEY"], "1", "environment OPENAI_API_KEY", id="openai"),
        pytest.param("anthropic", ["ANTHROPIC_API_KEY"], "1", "environment ANTHROPIC_API_KEY", id="anthropic"),
        pytest.param("dashscope", ["DASHSCOPE_API_KEY"], "1", "environment DASHSCOPE_API_KEY", id="dashscope"),
        pytest.param("gemini", ["GOOGLE_API_KEY", "GEMINI_API_KEY"], "2", "environment GEMINI_API_KEY", id="gemini"),
        pytest.param("gemini", ["GOOGLE_API_KEY"], "1", "environment GOOGLE_API_KEY", id="google"),
        pytest.param("ollama", ["OPENAI_API_KEY"], None, "default", id="ollama"),
        pytest.param("openai", ["ANTHROPIC_API_KEY"], None, "default", id="another's"),
    ],
)
def test_a_slot_without_a_key_takes_its_vendors(
    project: Project, provider: str, variables: list[str], key: str | None, origin: str
) -> None:
    project.environment.update({name: str(number) for number, name in enumerate(variables, 1)})
    loaded = project.write(f"models: {{m: {{provider: {provider}, model: x}}}}").load()
    api_key = loaded.settings.models["m"].api_key
    assert (api_key and api_key.get_secret_value()) == key
    assert loaded.origin("models.m.api_key") == origin


def test_a_vendors_key_may_be_in_dotenv(project: Project) -> None:
    project.write("OPENAI_API_KEY=x\n", ".env").write("models: {m: {provider: openai, model: x}}")
    assert project.load().origin("models.m.api_key") == ".env:1"


def test_a_key_of_null_or_an_empty_variable_means_no_key(project: Project) -> None:
    project.environment.update(OPENAI_API_KEY="x", ANTHROPIC_API_KEY="")
    project.write("""
        models:
          local: {provider: openai, model: x, base_url: http://localhost:8000/v1, api_key: null}
          other: {provider: anthropic, model: x}
        """)
    assert [slot.api_key for slot in project.load().settings.models.values()] == [None, None]


@pytest.mark.parametrize(
    ("environment", "more", "provider"),
    [
        ({}, "offline_without_key: true", "offline"),
        ({"OPENAI_API_KEY": "k"}, "offline_without_key: true", "openai"),
        ({}, "offline_without_key: true, api_key: k", "openai"),
        ({}, "offline_without_key: false", "openai"),
    ],
    ids=["no key", "a variable", "a key", "not asked for"],
)
def test_a_slot_without_a_key_may_become_offline(
    project: Project, environment: dict[str, str], more: str, provider: str
) -> None:
    project.environment.update(environment)
    loaded = project.write(f"models: {{main: {{provider: openai, model: m, {more}}}}}\n").load()
    assert loaded.settings.models["main"].provider == provider
    assert loaded.origin("models.main.provider").startswith("agentapp.yaml:1:")
