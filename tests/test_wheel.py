"""What pip installs: the built wheel, in an environment of its own, runs a project and migrates its database."""

import json
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

import processes
from processes import agentscope, environment, running

ROOT = Path(__file__).parents[1]


def pip(environment: Path) -> list[str]:
    """The command of this environment's pip that works on another one."""
    interpreter = environment / "bin" / "python"
    return [sys.executable, "-m", "pip", "--python", str(interpreter), "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `agentscope` command of an environment that holds the wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    # What is imported is compiled then: most is not.
    command = [*pip(folder), "install", "--quiet", "--no-compile", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*command, str(wheel)], check=True, timeout=300)
    return folder / "bin" / "agentscope"


def test_the_wheel_holds_the_three_packages_and_the_migrations(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "agentscope/__init__.py",
        "agentscope/py.typed",
        "agentscope_adapters/py.typed",
        "agentscope_cli/py.typed",
        "agentscope_adapters/storage/alembic/env.py",
        "agentscope_adapters/storage/alembic/script.py.mako",
        "agentscope_adapters/storage/alembic/versions/0001_sessions.py",
        "agentscope_adapters/storage/alembic.ini",
    ):
        assert needed in names
    roots = {name.split("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {
        "agentscope",
        "agentscope_adapters",
        "agentscope_cli",
    }


def test_the_installed_wheel_runs_a_project(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "AGENTSCOPE", installed)
    for file in (ROOT / "examples" / "quickstart").glob("[!.]*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = agentscope("db", "current", tmp_path)
    assert (before.returncode, before.stdout.split()[-1]) == (0, "none"), before.stderr
    with running(tmp_path) as server:
        body = {"session_id": "s", "message": {"name": "u", "role": "user", "content": "hello from a wheel"}}
        request = urllib.request.Request(
            f"{server.address}/invoke", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            *messages, trailer = (json.loads(line) for line in answer)
        server.stop()
    assert messages
    assert trailer["metadata"]["done"] is True
    assert agentscope("db", "check", tmp_path).returncode == 0


def test_the_wheel_brings_nothing_of_the_development_environment(installed: Path) -> None:
    listed = subprocess.run(
        [*pip(installed.parents[1]), "list", "--format", "json"],
        capture_output=True,
        check=True,
        timeout=60,
        env=environment(),
    )
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "agentscope-kernel" in names
    assert not names & {"pytest", "ruff", "mypy", "hypothesis", "blockbuster"}
