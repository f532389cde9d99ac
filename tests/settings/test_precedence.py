"""Which source wins, and what is said about where a value came from."""

from pathlib import Path

import pytest

from agentscope.errors import ProjectError
from agentscope.runtime import settings
from agentscope.runtime.settings import Flag, Settings, load_settings
from settings.project import Project

FLAGS = {"server.port": Flag("--port", 5)}


def test_the_exported_names_are_these() -> None:
    assert settings.__all__ == [
        "AuthSettings",
        "ConfigurationError",
        "Described",
        "Flag",
        "JwtSettings",
        "LoadedSettings",
        "McpServerSettings",
        "ModelSettings",
        "PlatformSettings",
        "Problem",
        "ServerSettings",
        "SessionSettings",
        "Settings",
        "describe",
        "load_model_slots",
        "load_settings",
    ]


def test_an_empty_file_gives_the_defaults(project: Project) -> None:
    loaded = project.load()
    assert loaded.settings == Settings()
    assert loaded.origin("server.port") == "default"
    assert loaded.project == project.folder.resolve()


@pytest.mark.parametrize("text", ["# nothing\n", "---\n", "models:\nserver:\nsession:\nmcp_servers:\n", "\ufeff"])
def test_a_file_with_nothing_in_it_is_valid(project: Project, text: str) -> None:
    assert project.write(text).load().settings == Settings()


@pytest.mark.parametrize(
    ("sources", "port", "origin"),
    [
        pytest.param(5, 5, "--port", id="flag"),
        pytest.param(4, 4, "--set server.port", id="assignment"),
        pytest.param(3, 3, "environment AGENTSCOPE_SERVER__PORT", id="environment"),
        pytest.param(2, 2, ".env:2", id="dotenv"),
        pytest.param(1, 1, "agentapp.yaml:2:9", id="file"),
        pytest.param(0, 8080, "default", id="default"),
    ],
)
def test_the_highest_source_that_has_a_value_wins(project: Project, sources: int, port: int, origin: str) -> None:
    if sources >= 1:
        project.write("server:\n  port: 1\n")
    if sources >= 2:
        project.write("\nAGENTSCOPE_SERVER__PORT=2\n", ".env")
    if sources >= 3:
        project.environment["AGENTSCOPE_SERVER__PORT"] = "3"
    assignments = ["server.port=4"] if sources >= 4 else []
    loaded = project.load(*assignments, flags=FLAGS if sources >= 5 else None)
    assert loaded.settings.server.port == port
    assert loaded.origin("server.port") == origin


def test_a_list_with_nothing_in_it_is_empty(project: Project) -> None:
    project.write("models: {m: {provider: offline, script: }}")
    assert project.load().settings.models["m"].script == ()


def test_mappings_are_merged_and_lists_are_replaced(project: Project) -> None:
    project.write("""
        models:
          main: {provider: offline, generate_kwargs: {a: 1, stop: [x, y]}}
        """)
    project.environment["AGENTSCOPE_MODELS__MAIN__GENERATE_KWARGS"] = '{"b": 2}'
    loaded = project.load("models.main.generate_kwargs={stop: [z]}", "models.other.provider=offline")
    assert loaded.settings.models["main"].generate_kwargs == {"a": 1, "b": 2, "stop": ["z"]}
    assert set(loaded.settings.models) == {"main", "other"}
    assert loaded.origin("models") == "agentapp.yaml:2:1"
    assert loaded.origin("models.main.generate_kwargs.stop.0") == "--set models.main.generate_kwargs"


def test_a_flag_that_was_not_given_changes_nothing(project: Project) -> None:
    assert project.load(flags={"server.port": Flag("--port", None)}).settings.server.port == 8080


def test_null_in_an_assignment_takes_a_value_away(project: Project) -> None:
    assert project.write("session: {ttl: 5}").load("session.ttl=").settings.session.ttl is None


def test_another_file_is_read_when_it_is_given(project: Project) -> None:
    project.write("server: {port: 1}", "other.yaml")
    loaded = load_settings(project.folder, config=project.folder / "other.yaml", environment={})
    assert loaded.settings.server.port == 1
    assert loaded.config.name == "other.yaml"
    assert loaded.origin("server.port").endswith("other.yaml:1:16")


def test_the_process_environment_is_read_unless_one_is_given(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTSCOPE_SERVER__PORT", "7")
    assert load_settings(project.folder).settings.server.port == 7
    assert project.load().settings.server.port == 8080


@pytest.mark.parametrize(
    ("path", "config", "message"),
    [
        pytest.param("nowhere", None, "no folder", id="no folder"),
        pytest.param("agentapp.yaml", None, "is a file: name the project's folder", id="a file"),
        pytest.param("empty", None, "no agentapp.yaml in .*: create one", id="no file in it"),
        pytest.param(".", "nowhere.yaml", "no file .*: give --config", id="no such config"),
        pytest.param(".", "empty", "no file .*: give --config", id="config is a folder"),
    ],
)
def test_a_project_that_is_not_there_is_refused(project: Project, path: str, config: str | None, message: str) -> None:
    (project.folder / "empty").mkdir()
    file = None if config is None else project.folder / config
    with pytest.raises(ProjectError, match=message):
        load_settings(project.folder / path, config=file, environment={})


def test_the_folder_one_is_in_is_named_when_it_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=f"no agentapp.yaml in {tmp_path.resolve()}: create one"):
        load_settings(Path(), environment={})


def test_a_file_that_can_not_be_read_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, who is refused nothing.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ProjectError, match=r"agentapp\.yaml can't be read: permission denied"):
        project.load()
