"""The settings of the platform, and how the adapter is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentscope.errors import UserError
from agentscope.runtime._adapters import PLATFORMS, find_adapter
from agentscope.runtime.settings import PlatformSettings, describe
from agentscope_adapters.platform.http import open_platform
from platform_server import RecordingInstance
from processes import environment
from settings.project import Project

NO_URL = "is not a URL; write it like https://host:8000/path"
NO_TOKEN = "holds a blank, a line break or a character that no HTTP header can hold; copy the token again"
NO_SEGMENT = "must not be . or .., which lead elsewhere in a URL"
EMPTY = "is empty; give it a value, or remove the key"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project."""
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("endpoint: platform.example.com", "endpoint", "must start with http:// or https://"),
        ("endpoint: 'https://hunter2@'", "endpoint", NO_URL),
        ("endpoint: 'https://a b'", "endpoint", NO_URL),
        ("endpoint: 'https://hunter2:x'", "endpoint", NO_URL),
        ("endpoint: 'https://a/#hunter2'", "endpoint", "must not have a #; write %23 for one in the path"),
        ("instance_id: ''", "instance_id", EMPTY),
        ("instance_id: .", "instance_id", NO_SEGMENT),
        ("instance_id: ..", "instance_id", NO_SEGMENT),
        ("instance_id: 7", "instance_id", "must be a text; put it in quotes"),
        ("token: ''", "token", EMPTY),
        ("token: 'hunter2 '", "token", NO_TOKEN),
        ('token: "hunter2\\nX: y"', "token", NO_TOKEN),
        ("token: hünter2", "token", NO_TOKEN),
        ("token: {file: secret}", "token", NO_TOKEN),
        ("endpoint: 'https://hunter2@a', token: hunter2", "token", None),
        ("endpoint: 'https://me:hunter2@a?b=c', token: hunter2", "token", None),
        ("heartbeat_interval: 0", "heartbeat_interval", "must be 0.01 or more"),
        ("heartbeat_interval: -30", "heartbeat_interval", "must be 0.01 or more"),
        ("heartbeat_interval: 86401", "heartbeat_interval", None),
        ("heartbeat_interval: .inf", "heartbeat_interval", None),
        ("heartbeat_interval: .nan", "heartbeat_interval", None),
        ("heartbeat_interval: often", "heartbeat_interval", "must be a number"),
        ("provider: ''", "provider", EMPTY),
    ],
)
def test_what_can_not_be_used_is_refused_with_the_reason(
    project: Project, text: str, at: str, message: str | None
) -> None:
    project.write("hunter2\n\n", "secret")
    problem = project.write(f"platform: {{{text}}}").problem()
    assert problem.key == f"platform.{at}"
    assert problem.message == message or message is None
    assert "hunter2" not in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "endpoint: 'http://127.0.0.1:1/prefix/'",
        "endpoint: 'https://me:p%40ss@platform.example.com/?key=a'",
        "endpoint: 'https://a/b@c?d=@', token: hunter2",
        "instance_id: 'eu/rack 3/ü#?%'",
        "token: 'a.b-c_d~e+f/g=='",
        "heartbeat_interval: 0.01",
        "heartbeat_interval: 86400",
    ],
)
def test_what_can_be_used_loads(project: Project, text: str) -> None:
    assert project.write(f"platform: {{{text}}}").load()


def test_the_defaults_speak_to_nobody() -> None:
    settings = PlatformSettings()
    assert (settings.endpoint, settings.token, settings.heartbeat_interval) == (None, None, 30)
    assert settings.instance_id


def test_no_secret_is_shown(project: Project) -> None:
    loaded = project.write("hunter2", "secret").write(
        "platform: {endpoint: 'https://a/?api_key=hunter2', token: {file: secret}}"
    )
    settings = loaded.load()
    assert "hunter2" not in repr(settings.settings)
    shown = {entry.key: entry.value for entry in describe(settings)}
    assert shown["platform.endpoint"] == "https://a/?api_key=***"
    assert shown["platform.token"] == "***"
    assert "hunter2" not in json.dumps(list(shown.items()))


def test_the_adapter_is_found_by_its_name() -> None:
    found = find_adapter(PLATFORMS, "http", "platform.provider", PlatformSettings(), RecordingInstance())
    assert found is open_platform
    with pytest.raises(UserError, match="did you mean 'http'"):
        find_adapter(PLATFORMS, "htpp", "platform.provider")


def test_a_program_that_speaks_to_no_platform_does_not_import_the_adapter() -> None:
    code = (
        "import sys, agentscope.runtime._adapters, agentscope.server;"
        "print([name for name in sys.modules if name.startswith('agentscope_adapters')])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "[]\n"
