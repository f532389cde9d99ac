"""Documents that are broken, hostile, or use the rarer parts of YAML."""

import time

import pytest

from agentscope.runtime.settings import Problem
from settings.project import Project


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        pytest.param("app: b: c", "1:7", "a ':' can't stand here; put the text in quotes", id="colon"),
        pytest.param("server:\n  host: a\n\tport: 2", "3:1", "tabs can't indent; use spaces", id="tab"),
        pytest.param("app: @x", "1:6", "a text can't begin with this character; put it in quotes", id="at sign"),
        pytest.param('app: "x\n', "1:6", "this quote is never closed", id="quote"),
        pytest.param(
            "app: a\nserver: [1, 2\n", "2:9", "this bracket is never closed, or a ',' is missing", id="bracket"
        ),
        pytest.param("app: *x", "1:6", "the anchor of this alias isn't defined above", id="alias"),
        pytest.param("app: &x a\nserver: &x b", "2:9", "this anchor is defined twice", id="anchor"),
        pytest.param("app: a:A\n---\nserver: {}\n", "2:1", "only one document may be in the file", id="documents"),
        pytest.param('app: "\\q"', "1:7", "a backslash in double quotes starts an escape", id="escape"),
        pytest.param("app: a\x07", "1:7", "a character that YAML does not allow; remove it", id="control character"),
        pytest.param(b"app: a\nserver: \xff", "2:9", "is not UTF-8 text; save the file as UTF-8", id="bytes"),
        pytest.param("%FOO\n---\na: 1", "1:5", "not valid YAML", id="directive"),
        pytest.param("[a, b]", "1:1", "must be a mapping with keys of its own", id="list"),
        pytest.param("text", "1:1", "must be a mapping with keys of its own", id="text"),
        pytest.param("[" * 500_000, "1:64", "nested more than 64 levels deep", id="brackets"),
        pytest.param("{a: " * 100_000, "1:253", "nested more than 64 levels deep", id="braces"),
        pytest.param("- " * 500_000, "1:127", "nested more than 64 levels deep", id="dashes"),
    ],
)
def test_text_that_is_no_document_is_one_problem_at_its_place(
    project: Project, text: str | bytes, where: str, message: str
) -> None:
    (project.folder / "agentapp.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    problem = project.problem()
    assert (problem.where, problem.key) == (f"agentapp.yaml:{where}", "")
    assert problem.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "app: a:A\napp: b:B",
            Problem("agentapp.yaml:2:1", "app", "duplicate key, it is also at agentapp.yaml:1:1; remove one"),
            id="duplicate key",
        ),
        pytest.param(
            "1: x", Problem("agentapp.yaml:1:1", "1", "a key must be a text; put it in quotes"), id="number as a key"
        ),
        pytest.param(
            "models: {no: {}}",
            Problem("agentapp.yaml:1:10", "models.no", "a key must be a text; put it in quotes"),
            id="bool as a key",
        ),
        pytest.param(
            "? [a]\n: 1",
            Problem("agentapp.yaml:1:3", "", "a key must be a text, not a mapping or a list"),
            id="list as a key",
        ),
        pytest.param(
            "app: !!python/object:os.system x",
            Problem("agentapp.yaml:1:6", "app", "tags (!) are not used here; remove it, or put the text in quotes"),
            id="tag",
        ),
        pytest.param(
            "server: !!set {}",
            Problem("agentapp.yaml:1:9", "server", "tags (!) are not used here; remove it"),
            id="tag of a mapping",
        ),
        pytest.param(
            'server: {port: !!int ""}',
            Problem(
                "agentapp.yaml:1:16",
                "server.port",
                "can't be read as its tag says; remove the tag, or put the text in quotes",
            ),
            id="tag that does not fit",
        ),
        pytest.param(
            "server: {port: 99999999999999999999}",
            Problem("agentapp.yaml:1:16", "server.port", "the number is too large; put it in quotes if it is a text"),
            id="large number",
        ),
        pytest.param(
            "server: {<<: 5}",
            Problem("agentapp.yaml:1:14", "server.<<", "must be an alias of a mapping"),
            id="merge of a number",
        ),
        pytest.param(
            "server: &a {cors_origins: [*a]}",
            Problem("agentapp.yaml", "", "nested more than 64 levels deep, or an alias that leads back to itself"),
            id="alias of itself",
        ),
        pytest.param(
            "server: &a {<<: [*a, *a]}",
            Problem("agentapp.yaml", "", "nested more than 64 levels deep, or an alias that leads back to itself"),
            id="merge of itself",
        ),
    ],
)
def test_a_document_that_means_nothing_is_one_problem(project: Project, text: str, problem: Problem) -> None:
    assert project.write(text).problem() == problem


def test_aliases_that_expand_without_end_are_refused_soon(project: Project) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    project.write("\n".join(lines))
    started = time.monotonic()
    problem = project.problem()
    assert time.monotonic() - started < 10
    assert problem.message == "more than 100000 values when its aliases are expanded; make it smaller"


def test_a_file_that_is_too_large_is_not_read(project: Project) -> None:
    assert project.write(b"#" * 2_000_000).problem().message == "larger than 1048576 bytes; make it smaller"


def test_anchors_and_merge_keys_work(project: Project) -> None:
    project.write("""
        models:
          main: &main
            provider: offline
            generate_kwargs: &kwargs {temperature: 0, top_p: 1}
          cheap:
            <<: *main
            generate_kwargs: {<<: [{temperature: 2}, *kwargs], top_p: 3}
        """)
    models = project.load().settings.models
    assert models["main"].generate_kwargs == {"temperature": 0, "top_p": 1}
    assert models["cheap"].provider == "offline"
    assert models["cheap"].generate_kwargs == {"temperature": 2, "top_p": 3}


def test_what_looks_like_a_date_or_a_time_stays_a_text(project: Project) -> None:
    project.write("models: {m: {provider: offline, client_kwargs: {api_version: 2024-10-21, at: 12:30}}}")
    assert project.load().settings.models["m"].client_kwargs == {"api_version": "2024-10-21", "at": "12:30"}
