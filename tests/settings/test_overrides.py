"""Variables, ``.env`` and ``--set``."""

import pytest

from agentscope.runtime.settings import Flag, Problem
from settings.project import Project


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("SERVER__PORT", "9000", {"server": {"port": 9000}}, id="number"),
        pytest.param("SERVER__CORS_ORIGINS", '["http://a"]', {"server": {"cors_origins": ("http://a",)}}, id="list"),
        pytest.param("SERVER", '{"port": 1}', {"server": {"port": 1}}, id="section"),
        pytest.param("APP", "x:Y", {"app": "x:Y"}, id="top-level key"),
        pytest.param("SESSION__BACKEND", "5", {"session": {"backend": "5"}}, id="text of digits"),
    ],
)
@pytest.mark.parametrize("spell", [str.upper, str.lower], ids=["upper", "lower"])
def test_a_variable_sets_a_key_whatever_its_case(
    project: Project, name: str, value: str, expected: dict[str, object], spell: "type[str]"
) -> None:
    project.environment[spell(f"AGENTSCOPE_{name}")] = value
    assert project.load().settings.model_dump(exclude_unset=True) == expected


def test_a_variable_below_free_keys_is_read_as_json_where_it_is_json(project: Project) -> None:
    prefix = "AGENTSCOPE_MODELS__M__GENERATE_KWARGS__"
    project.environment.update(
        {f"{prefix}TEMPERATURE": "0.5", f"{prefix}STOP": '["a"]', f"{prefix}USER": "me", f"{prefix}A__B": "true"}
    )
    loaded = project.load("models.m.provider=offline")
    assert loaded.settings.models["m"].generate_kwargs == {
        "temperature": 0.5,
        "stop": ["a"],
        "user": "me",
        "a": {"b": True},
    }


def test_a_variable_finds_the_slot_of_the_file_whatever_its_case(project: Project) -> None:
    project.write("models: {Main-One: {provider: offline}}")
    project.environment["AGENTSCOPE_MODELS__MAIN_ONE__MODEL"] = "x"
    assert {name: slot.model for name, slot in project.load().settings.models.items()} == {"Main-One": "x"}


def test_variables_of_a_stdio_server_keep_their_case(project: Project) -> None:
    project.write("mcp_servers: {s: {transport: stdio, command: c}}")
    project.environment["AGENTSCOPE_MCP_SERVERS__S__ENV__GITHUB_TOKEN"] = "x"
    assert list(project.load().settings.mcp_servers["s"].env) == ["GITHUB_TOKEN"]


def test_the_variable_of_a_key_comes_before_that_of_its_section(project: Project) -> None:
    project.environment.update(AGENTSCOPE_SERVER='{"port": 1, "host": "a"}', AGENTSCOPE_SERVER__PORT="2")
    server = project.load().settings.server
    assert (server.port, server.host) == (2, "a")


@pytest.mark.parametrize("name", ["AGENTSCOPE_SERVICE_HOST", "AGENTSCOPE_PORT_80_TCP", "AGENTSCOPE_HOME", "SERVER__X"])
def test_other_variables_are_left_alone(project: Project, name: str) -> None:
    project.environment[name] = "x"
    project.load()


@pytest.mark.parametrize(
    ("name", "value", "key", "message"),
    [
        pytest.param("SERVR__PORT", "1", "servr", "unknown key; did you mean server?", id="section"),
        pytest.param("SERVER__PROT", "1", "server.prot", "unknown key; did you mean port?", id="key"),
        pytest.param("SERVER__PORT", "80a", "server.port", "must be a whole number", id="number"),
        pytest.param("SERVER__PORT__X", "1", "server.port", "must be a single value, not a mapping", id="too deep"),
        pytest.param(
            "SERVER__CORS_ORIGINS",
            "a,b",
            "server.cors_origins",
            "is not JSON; in a variable, lists and mappings are written in JSON",
            id="no JSON",
        ),
        pytest.param(
            "SERVER",
            "[" * 100_000,
            "server",
            "is not JSON; in a variable, lists and mappings are written in JSON",
            id="deep",
        ),
        pytest.param(
            "SERVER____PORT", "1", "", "is not the path of a key; write AGENTSCOPE_SERVER__PORT", id="no step"
        ),
        pytest.param("MODELS__M__MODEL", "x", "models.m.provider", "required and missing; add it", id="required key"),
    ],
)
def test_a_wrong_variable_is_one_problem_under_its_name(
    project: Project, name: str, value: str, key: str, message: str
) -> None:
    project.environment[f"AGENTSCOPE_{name}"] = value
    assert project.problem() == Problem(f"environment AGENTSCOPE_{name}", key, message)


def test_dotenv_is_read_as_it_is(project: Project) -> None:
    project.environment["HOME"] = "x"
    project.write(
        b"\xef\xbb\xbf# comment\r\nexport AGENTSCOPE_SERVER__HOST='${HOME}'\r\n\r\n AGENTSCOPE_APP = a:A # b\r\n",
        ".env",
    )
    loaded = project.load()
    assert (loaded.settings.server.host, loaded.settings.app) == ("${HOME}", "a:A")
    assert (loaded.origin("server.host"), loaded.origin("app")) == (".env:2", ".env:4")


def test_broken_lines_of_dotenv_are_problems_with_their_numbers(project: Project) -> None:
    project.write('\nA=1\n\n\nB="hunter2\nC\nAGENTSCOPE_SERVER__PROT=1\n', ".env")
    message = "can't be read; write NAME=value, and close every quote"
    assert project.problems() == [
        Problem(".env:5", "", message),
        Problem(".env:6", "", message),
        Problem(".env:7", "server.prot", "unknown key; did you mean port?"),
    ]


def test_a_dotenv_that_is_no_text_is_a_problem(project: Project) -> None:
    assert project.write(b"A=\xff\n", ".env").problem() == Problem(".env", "", "is not UTF-8 text; save it as UTF-8")


def test_a_folder_named_dotenv_is_none_of_ours(project: Project) -> None:
    (project.folder / ".env").mkdir()
    project.load()


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        pytest.param("server.port=9000", {"server": {"port": 9000}}, id="number"),
        pytest.param("server.host=0.0.0.0", {"server": {"host": "0.0.0.0"}}, id="text"),
        pytest.param("server.cors_origins=['*']", {"server": {"cors_origins": ("*",)}}, id="list"),
        pytest.param("session={backend: a=b}", {"session": {"backend": "a=b"}}, id="mapping"),
        pytest.param(" server.debug = yes", {"server": {"debug": True}}, id="spaces"),
    ],
)
def test_an_assignment_sets_a_key_to_a_yaml_value(
    project: Project, assignment: str, expected: dict[str, object]
) -> None:
    assert project.load(assignment).settings.model_dump(exclude_unset=True) == expected


@pytest.mark.parametrize(
    ("assignment", "where", "key", "message"),
    [
        pytest.param("server.port", "--set server.port", "", "has no =; write --set server.port=9000", id="no sign"),
        pytest.param("sk-hunter2", "--set", "", "has no =; write --set server.port=9000", id="only a value"),
        pytest.param("=5", "--set", "", "is not a dotted key; write --set server.port=9000", id="no key"),
        pytest.param("a..b=5", "--set", "", "is not a dotted key; write --set server.port=9000", id="no step"),
        pytest.param(
            "app=[hunter2",
            "--set app",
            "app",
            "the value is not YAML; put it in quotes, or pass it in a variable",
            id="no YAML",
        ),
        pytest.param(
            "server.port.x=hunter2",
            "--set server.port.x",
            "server.port",
            "must be a single value, not a mapping",
            id="through a number",
        ),
        pytest.param(
            "server.cors_origins.0=hunter2",
            "--set server.cors_origins.0",
            "server.cors_origins",
            "must be a list, like [a, b]",
            id="through a list",
        ),
        pytest.param(
            "models.m.generate_kwargs.a.b=hunter2",
            "--set models.m.generate_kwargs.a.b",
            "models.m.generate_kwargs.a",
            "holds a single value or a list (agentapp.yaml:1:54): nothing can be set below it",
            id="through a free value",
        ),
        pytest.param("serve.port=1", "--set serve.port", "serve", "unknown key; did you mean server?", id="typo"),
    ],
)
def test_a_wrong_assignment_is_one_problem_without_its_value(
    project: Project, assignment: str, where: str, key: str, message: str
) -> None:
    project.write("models: {m: {provider: offline, generate_kwargs: {a: 5}}}")
    assert project.problem(assignment) == Problem(where, key, message)


def test_an_assignment_with_endless_steps_is_refused(project: Project) -> None:
    steps = ".".join(["a"] * 5000)
    problem = project.problem(f"models.m.generate_kwargs.{steps}=1")
    assert problem.message == "is not a dotted key; write --set server.port=9000"


def test_a_wrong_flag_is_reported_under_its_name(project: Project) -> None:
    from agentscope.runtime.settings import ConfigurationError

    with pytest.raises(ConfigurationError) as caught:
        project.load(flags={"server.port": Flag("--port", 70_000)})
    assert caught.value.problems == (Problem("--port", "server.port", "must be 65535 or less"),)
