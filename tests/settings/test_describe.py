"""What is shown of the settings: to people, and to logs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentscope.runtime.settings import ConfigurationError, describe
from agentscope_cli._config import config
from settings.project import Project

SECRETS = """
    models:
      main:
        provider: openai
        model: gpt-4
        base_url: https://user:hunter2@example.com/v1?api_key=hunter2&v=1
        api_key: hunter2
        generate_kwargs: {max_tokens: 500, user_password: hunter2, tools: [{token: hunter2, name: a}]}
        client_kwargs: {default_headers: {X: hunter2}, apiKey: hunter2, azure: {ad_tokens: [hunter2], region: eu}}
    mcp_servers:
      s: {transport: sse, url: "https://hunter2@example.com/sse", headers: {A: hunter2}, env: {B: "https://hunter2"}}
    session: {url: "postgresql+asyncpg://app:hun@ter2@db:5432/x?sslpassword=hunter2"}
    platform: {token: hunter2}
    """


def shown(project: Project) -> dict[str, tuple[object, str]]:
    return {entry.key: (entry.value, entry.origin) for entry in describe(project.load())}


def test_every_value_is_shown_with_its_origin_and_without_secrets(project: Project) -> None:
    entries = shown(project.write(SECRETS))
    assert entries["models.main.api_key"] == ("***", "agentapp.yaml:7:14")
    assert entries["models.main.base_url"][0] == "https://user:***@example.com/v1?api_key=***&v=1"
    assert entries["models.main.generate_kwargs.max_tokens"][0] == 500
    assert entries["models.main.generate_kwargs.user_password"][0] == "***"
    assert entries["models.main.generate_kwargs.tools"][0] == [{"token": "***", "name": "a"}]
    assert entries["models.main.client_kwargs.default_headers"] == ("***", "agentapp.yaml:9:21")
    assert entries["models.main.client_kwargs.azure.ad_tokens"][0] == "***"
    assert entries["models.main.client_kwargs.azure.region"][0] == "eu"
    assert entries["mcp_servers.s.url"][0] == "https://***@example.com/sse"
    assert entries["mcp_servers.s.env.B"][0] == "***"
    assert entries["session.url"][0] == "postgresql+asyncpg://app:***@db:5432/x?sslpassword=***"
    assert entries["server.port"] == (8080, "default")
    assert "hunter2" not in json.dumps(list(entries.items()))
    assert "ter2" not in json.dumps(list(entries.items()))


@pytest.mark.parametrize("write", [repr, str])
def test_no_secret_is_in_a_repr(project: Project, write: "type[str]") -> None:
    loaded = project.write(SECRETS).load()
    text = write(loaded) + write(loaded.settings)
    assert "gpt-4" in text
    assert "hunter2" not in text
    assert "ter2" not in text


def test_a_database_that_is_no_url_is_not_shown(project: Project) -> None:
    assert shown(project.write("session: {url: hunter2}"))["session.url"][0] == "***"


def run(project: Project, *arguments: str) -> str:
    result = CliRunner().invoke(config, ["show", str(project.folder), *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_command_prints_aligned_lines(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSCOPE_SESSION__BACKEND", "sub")
    lines = run(project.write("app: 'ä:Ä'"), "--set", "server.port=9000").splitlines()
    cells = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines}
    assert cells["app"] == ["ä:Ä", "agentapp.yaml:1:6"]
    assert cells["server.port"] == ["9000", "--set server.port"]
    assert cells["session.backend"] == ["sub", "environment AGENTSCOPE_SESSION__BACKEND"]
    assert cells["session.ttl"] == ["null", "default"]
    assert len({line.index(" default") for line in lines if line.endswith(" default")}) == 1


def test_the_command_prints_json_for_programs(project: Project) -> None:
    output = json.loads(run(project.write(SECRETS), "--json"))
    assert output["session.backend"] == {"value": "sql", "origin": "default"}
    assert output["models.main.api_key"] == {"value": "***", "origin": "agentapp.yaml:7:14"}


def test_the_command_reads_another_file(project: Project) -> None:
    project.write("server: {port: 1}", "other.yaml")
    assert "other.yaml:1:16" in run(project, "--config", str(project.folder / "other.yaml"))


def test_the_command_prints_what_can_not_be_encoded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSCOPE_MODELS__M__GENERATE_KWARGS__X", "\udcff")
    assert "\\udcff" in run(project, "--set", "models.m.provider=offline")


def test_the_command_leaves_problems_to_its_caller(project: Project) -> None:
    with pytest.raises(ConfigurationError):
        run(project.write("sevrer: {}"))


def test_the_seed_example_loads(project: Project, tmp_path: Path) -> None:
    project.write("""
        models:
          main:
            provider: openai
            base_url: https://api.openai.com/v1
            model: gpt-4
            api_key: ${OPENAI_API_KEY}

        mcp_servers:
          search:
            url: https://mcp.example.com/search/sse
            transport: sse
        """).environment["OPENAI_API_KEY"] = "x"
    loaded = project.load()
    assert loaded.settings.models["main"].model == "gpt-4"
    assert loaded.config == tmp_path / "agentapp.yaml"
