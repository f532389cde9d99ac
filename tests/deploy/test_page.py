"""What ``docs/deploy.md`` shows is true: configurations are valid, and commands are the kernel's."""

import re
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from agentscope_cli._db import upgrade
from agentscope_cli._run import run
from deploy.chart import rendered
from deploy.schemas import check_manifest, problems
from deploy.test_chart import refused
from deploy.test_compose import FILE, compose_file

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")


def block(beginning: str) -> str:
    """The code block whose first line has that text."""
    [found] = [
        text for text in re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.M | re.S) if beginning in text.split("\n")[0]
    ]
    return cast(str, found)


def arguments(command: str) -> list[str]:
    """Those of a command of the kernel's, in a folder with secrets."""
    return shlex.split(command.replace("%d", "/secrets"))


def test_the_values_for_the_chart_are_valid() -> None:
    values: dict[str, Any] = yaml.safe_load(block("# values.yaml"))
    assert refused(values) == []
    for documents in rendered(values).values():
        for document in documents:
            check_manifest(document, "1.37")


def test_the_file_beside_compose_s_fits_it() -> None:
    beside: dict[str, Any] = yaml.safe_load(block("compose.override.yaml"))
    compose = compose_file()
    assert beside["services"].keys() == {"app"}
    app = {**compose["services"]["app"], **beside["services"]["app"]}
    secrets = {**compose["secrets"], **beside["secrets"]}
    assert problems({**compose, "services": {**compose["services"], "app": app}, "secrets": secrets}, FILE) == {}
    assert set(app["secrets"]) <= secrets.keys()
    # Compose replaces the command as a whole.
    ours: list[str] = compose["services"]["app"]["command"]
    assert set(ours[:5]) <= set(app["command"])
    run.make_context("run", list(app["command"]))


@pytest.mark.parametrize(("key", "command"), [("ExecStartPre", upgrade), ("ExecStart", run)], ids=["upgrade", "run"])
def test_the_unit_s_commands_exist(key: str, command: Any) -> None:
    unit = block("agentscope.service").replace("\\\n", " ")
    [line] = re.findall(rf"^{key}=(.*)$", unit, re.M)
    program, *words = arguments(line)
    assert program.endswith("/bin/agentscope")
    given = words[words.index(command.name) + 1 :]
    assert command.make_context(command.name, given).params["project"] == Path()


def test_the_unit_waits_for_the_drain() -> None:
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", block("agentscope.service"), re.M)
    assert int(seconds) >= 30 + 20
