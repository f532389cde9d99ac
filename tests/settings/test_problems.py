"""What is reported, where, in which words: one line for each mistake, all at once."""

import pytest

from agentscope.runtime.settings import ConfigurationError, Problem
from settings.project import Project


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            """
            models:
              main:
                provder: openai
                model: gpt-4
                api_key: ${OPENAI_API_KEY}
            mcp_severs: {}
            session: {on_conflict: quue}
            """,
            id="required key, section and choice",
        ),
        pytest.param(
            """
            modles:
              main:
                provder: openai
                model: gpt-4
                streem: true
                api_key: ${OPENAI_API_KEY}
            """,
            id="a section, and two keys below it",
        ),
        pytest.param(
            """
            models:
              main: {provider: openai, modle: gpt-4, api_ky: "${OPENAI_API_KEY}", stream: ture}
            """,
            id="the key of the variable",
        ),
        pytest.param(
            """
            models:
              main: {provider: openai, model: gpt-4, api_key: "${OPENAI_API_KEY}"}
            mcp_servers:
              search: {transport: see, url: https://mcp.example.com/sse}
            server: {port: 80a, shutdown_timeot: 5}
            """,
            id="choice, number and key",
        ),
    ],
)
def test_an_unset_variable_and_three_typos_are_four_lines(project: Project, text: str) -> None:
    problems = project.write(text).problems()
    assert len(problems) == 4, problems
    assert [problem.message for problem in problems].count(
        "environment variable OPENAI_API_KEY is not set; export it or add it to .env"
    ) == 1


def test_the_report_is_one_aligned_line_for_each_problem(project: Project) -> None:
    project.write("""\
        models:
          main:
            provider: offline
            api_key: ${OPENAI_API_KEY}
        mcp_severs: {}
        """)
    with pytest.raises(ConfigurationError) as caught:
        project.load()
    assert str(caught.value) == (
        "agentapp.yaml:4:14  models.main.api_key  "
        "environment variable OPENAI_API_KEY is not set; export it or add it to .env\n"
        "agentapp.yaml:5:1   mcp_severs           unknown key; did you mean mcp_servers?"
    )


@pytest.mark.parametrize(
    ("text", "where", "key", "message"),
    [
        pytest.param("sevrer: {}", "1:1", "sevrer", "unknown key; did you mean server?", id="top-level key"),
        pytest.param("server:\n  prot: 1", "2:3", "server.prot", "unknown key; did you mean port?", id="key"),
        pytest.param(
            "tracing: {xyz: 1}",
            "1:11",
            "tracing.xyz",
            "unknown key; the keys here are endpoint, headers, sample_ratio, record_contents",
            id="key like no other",
        ),
        pytest.param(
            "server: {port: 1, prot: 2}", "1:19", "server.prot", "unknown key; did you mean port?", id="both spellings"
        ),
        pytest.param(
            "server: {hst: [1]}", "1:10", "server.hst", "unknown key; did you mean host?", id="a wrong guess"
        ),
        pytest.param("server: {hst: 1}", "1:10", "server.hst", "unknown key; did you mean host?", id="a doubtful one"),
        pytest.param("server: {prt: }", "1:10", "server.prt", "unknown key; did you mean port?", id="an empty one"),
        pytest.param(
            "models: {m: {model: x}}", "1:10", "models.m.provider", "required and missing; add it", id="required key"
        ),
        pytest.param(
            "models: {m: {provider: openai}}",
            "1:10",
            "models.m.model",
            "required for openai; set it to the vendor's model name",
            id="key that another requires",
        ),
        pytest.param(
            "mcp_servers: {s: {transport: stdio, command: c, url: https://x/}}",
            "1:54",
            "mcp_servers.s.url",
            "not used by transport stdio; remove it",
            id="key that another excludes",
        ),
        pytest.param(
            "mcp_servers: {s: {transport: sse, url: 'https://x/', prefix: 'my tools/'}}",
            "1:62",
            "mcp_servers.s.prefix",
            "may hold letters, digits, _ and - alone: vendors refuse other names of tools",
            id="prefix that no tool's name can have",
        ),
        pytest.param(
            "mcp_servers: {s: {transport: see}}",
            "1:30",
            "mcp_servers.s.transport",
            "is not one of sse, streamable_http, stdio; did you mean sse?",
            id="choice",
        ),
        pytest.param(
            "session: {durability: 5}", "1:23", "session.durability", "is not one of full, normal", id="no choice"
        ),
        pytest.param("server: {debug: ture}", "1:17", "server.debug", "must be true or false", id="bool"),
        pytest.param("server: {port: 80a}", "1:16", "server.port", "must be a whole number", id="integer"),
        pytest.param("server: {port: 1.5}", "1:16", "server.port", "must be a whole number", id="fraction"),
        pytest.param("server: {port: yes}", "1:16", "server.port", "must be a number", id="bool for a number"),
        pytest.param("session: {ttl: x}", "1:16", "session.ttl", "must be a number", id="float"),
        pytest.param("session: {ttl: .inf}", "1:16", "session.ttl", "must be a finite number", id="infinity"),
        pytest.param("session: {ttl: 0}", "1:16", "session.ttl", "must be more than 0.0", id="zero seconds"),
        pytest.param("server: {port: 65536}", "1:16", "server.port", "must be 65535 or less", id="too large"),
        pytest.param("server: {workers: 0}", "1:19", "server.workers", "must be 1 or more", id="too small"),
        pytest.param("server: {host: 5}", "1:16", "server.host", "must be a text; put it in quotes", id="text"),
        pytest.param(
            "server:\n  host:", "2:8", "server.host", "has no value; give it one, or remove the key", id="empty"
        ),
        pytest.param("server: {host: [a]}", "1:16", "server.host", "must be a single value, not a list", id="list"),
        pytest.param(
            "server: {cors_origins: a}", "1:24", "server.cors_origins", "must be a list, like [a, b]", id="no list"
        ),
        pytest.param(
            "models: 5", "1:9", "models", "must be a mapping: names, and below each its value", id="no mapping"
        ),
        pytest.param(
            "tracing: [1]",
            "1:10",
            "tracing",
            "must be a mapping with keys of its own: endpoint, headers, sample_ratio, record_contents",
            id="no section",
        ),
        pytest.param("app: app", "1:6", "app", "must name a module and a class in it, like app:App", id="app"),
        pytest.param(
            "models: {m: {provider: offline, base_url: x}}",
            "1:43",
            "models.m.base_url",
            "must start with http:// or https://",
            id="no URL",
        ),
        pytest.param(
            "models: {m: {provider: offline, base_url: 'http://u:hunter2@[x'}}",
            "1:43",
            "models.m.base_url",
            "is not a URL; write it like https://host:8000/path",
            id="a broken URL",
        ),
        pytest.param(
            "models: {m: {provider: offline, script: [{}, {match: '('}]}}",
            "1:54",
            "models.m.script[1].match",
            "is not a regular expression; put a backslash before a character that stands for itself",
            id="item of a list",
        ),
        pytest.param(
            "models: {a.b: {provider: offline}}",
            "1:10",
            "models.a.b",
            "a name can't hold a dot: dots separate the steps of a path; rename it",
            id="dot in a name",
        ),
        pytest.param(
            "models: {1st: {provider: offline}}",
            "1:10",
            "models.1st",
            "a name is made of letters, digits, _ and -, and begins with a letter or _; rename it",
            id="name",
        ),
        pytest.param(
            "models: {m: {provider: offline, api_key: ''}}",
            "1:42",
            "models.m.api_key",
            "is empty; give it a value, or remove the key",
            id="empty secret",
        ),
        pytest.param(
            "models: {m: {provider: offline, api_key: [hunter2]}}",
            "1:42",
            "models.m.api_key",
            "must be a text, not a list",
            id="secret in a list",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_problem_in_plain_words(
    project: Project, text: str, where: str, key: str, message: str
) -> None:
    assert project.write(text).problem() == Problem(f"agentapp.yaml:{where}", key, message)


def test_what_is_below_a_misspelled_section_or_a_bad_name_is_checked_as_well(project: Project) -> None:
    project.write("sevrer: {prot: 1, port: 80a}\nmodels: {a.b: {streem: true}}\n")
    assert [problem.key for problem in project.problems()] == [
        "sevrer",
        "sevrer.prot",
        "sevrer.port",
        "models.a.b",
        "models.a.b.provider",
        "models.a.b.streem",
    ]


def test_problems_are_in_the_order_of_the_file_and_then_of_the_sources(project: Project) -> None:
    project.write("server: {port: x}\nxyz: 1\nsession: {ttl: x}\n").write("BROKEN\n", ".env")
    project.environment["AGENTSCOPE_SERVR__HOST"] = "a"
    wheres = [problem.where for problem in project.problems("sesion.lease_ttl=1")]
    assert wheres == [
        "agentapp.yaml:1:16",
        "agentapp.yaml:2:1",
        "agentapp.yaml:3:16",
        ".env:1",
        "environment AGENTSCOPE_SERVR__HOST",
        "--set sesion.lease_ttl",
    ]


def test_a_wrong_value_that_is_overridden_does_not_count(project: Project) -> None:
    project.write("server: {port: 80a}\nsession: {url: '${UNSET}'}\n")
    loaded = project.load("server.port=1", "session.url=sqlite://")
    assert loaded.settings.server.port == 1


def test_control_characters_of_a_key_are_escaped(project: Project) -> None:
    project.write('"a\\n\\x1b[31m": 1\n')
    with pytest.raises(ConfigurationError) as caught:
        project.load()
    assert str(caught.value).startswith("agentapp.yaml:1:1  a\\n\\x1b[31m  unknown key")


@pytest.mark.parametrize(
    "text",
    [
        "models: {m: {provider: offline, api_key: {x: hunter2}}}",
        "models: {m: {provider: offline, api_key: {file: hunter2/}, stream: hunter2, base_url: hunter2}}",
        "session: {url: '${A:-hunter2}'}",
        "session: {url: *hunter2 }",
        "session: {url: !hunter2 x}",
        "session: {url: &hunter2 x, backend: &hunter2 y}",
        "session: {url: !!int hunter2}",
        "session: {url: @hunter2}",
        "session: {ttl: hunter2, on_conflict: hunter2, url: {file: {hunter2: 1}}}",
    ],
)
def test_no_message_holds_a_value(project: Project, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        project.write(text).load("session.url=*hunter2", "session.ttl=hunter2", "session.url: hunter2", "hunter2")
    messages = [problem.message for problem in caught.value.problems if "the secret's file" not in problem.message]
    assert "hunter2" not in "".join(messages)
    assert not any("hunter2" in problem.where for problem in caught.value.problems)
