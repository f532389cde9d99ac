"""``deploy/compose.yaml``: its keys are Compose's, its parts fit together, and the kernel takes what it is told."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from agentscope.runtime.settings import Settings, load_settings
from agentscope_cli._run import run
from deploy.schemas import problems

ROOT = Path(__file__).parents[2]
SECONDS = {"type": "string", "pattern": "^[0-9]+(s|m)$"}
STRINGS = {"type": "array", "items": {"type": "string"}}
SERVICE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "image": {"type": "string"},
        "build": {"type": "object", "additionalProperties": False, "properties": {"context": {"type": "string"}}},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test"],
            "properties": {"test": STRINGS, "interval": SECONDS, "timeout": SECONDS, "retries": {"type": "integer"}},
        },
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {"condition": {"enum": ["service_healthy", "service_completed_successfully"]}},
            },
        },
        "deploy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "replicas": {"type": "integer", "minimum": 1},
                "resources": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "limits": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"cpus": {"type": "string"}, "memory": {"type": "string"}},
                        }
                    },
                },
            },
        },
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "stop_signal": {"type": "string", "pattern": "^SIG[A-Z0-9]+$"},
        "stop_grace_period": SECONDS,
        "user": {"type": "string", "pattern": "^[0-9]+:[0-9]+$"},
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        **dict.fromkeys(("entrypoint", "command", "secrets", "volumes", "tmpfs", "ports"), STRINGS),
        **dict.fromkeys(("cap_drop", "security_opt"), STRINGS),
    },
}
FILE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
        "secrets": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["file"],
                "properties": {"file": {"type": "string"}},
            },
        },
    },
}
"""That part of the Compose specification which the file uses."""


def compose_file() -> dict[str, Any]:
    """What is in it."""
    return cast("dict[str, Any]", yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def compose() -> dict[str, Any]:
    return compose_file()


def settings_of(arguments: Sequence[str], folder: Path) -> Settings:
    """What the kernel makes of a service's arguments, with the secrets in ``folder``."""
    (folder / "session_url").write_text("postgresql://agentscope:p@postgres:5432/agentscope\n")
    (folder / "tokens").write_text("ops a-token-of-forty-characters-for-the-tests\n")
    project = shutil.copytree(ROOT / "examples" / "quickstart", folder / "project")
    words = [argument.replace("/run/secrets", str(folder)) for argument in arguments]
    with run.make_context("run", [str(project), "--host", "0.0.0.0", *words]) as context:
        return load_settings(project, assignments=context.params["assignments"], environment={}).settings


def seconds(time: str) -> int:
    return int(time[:-1]) * {"s": 1, "m": 60}[time[-1]]


def test_the_file_has_the_form_of_compose(compose: dict[str, Any]) -> None:
    assert problems(compose, FILE) == {}
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()
        assert set(service.get("secrets", [])) <= compose["secrets"].keys()
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            assert source in compose["volumes"] or (ROOT / "deploy" / source).exists(), volume
        for name, dependency in service.get("depends_on", {}).items():
            # nginx waits for the health check that the image has.
            checked = "healthcheck" in services[name] or "build" in services[name]
            assert dependency["condition"] == "service_completed_successfully" or checked


def test_two_replicas_start_after_the_migration_and_are_reached_through_nginx_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["app"]["deploy"]["replicas"] == 2
    assert services["app"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["entrypoint"] == ["agentscope", "db", "upgrade", "/app"]
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert services["nginx"]["ports"] == ["127.0.0.1:8080:8080"]


def test_the_kernel_takes_what_it_is_told(compose: dict[str, Any], tmp_path: Path) -> None:
    app = compose["services"]["app"]
    settings = settings_of(app["command"], tmp_path)
    assert settings.session.url is not None
    assert settings.session.url.get_secret_value() == "postgresql://agentscope:p@postgres:5432/agentscope"
    assert settings.server.auth.is_on
    # What closes after the drain has its own time limits, of 20 seconds together in the usual case.
    assert seconds(app["stop_grace_period"]) >= settings.server.shutdown_timeout + 20
    assert app["command"][1:3] == ["--set", compose["services"]["migrate"]["command"][1]]


def test_no_secret_is_in_the_file_and_nothing_runs_with_more_rights_than_it_needs(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            assert key.endswith("_FILE") or value == "agentscope", key
        if name != "postgres":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(secret["file"].startswith("./secrets/") for secret in compose["secrets"].values())
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
