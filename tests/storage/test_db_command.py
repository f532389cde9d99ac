"""``agentscope db``, and alembic's own command line in a checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentscope.errors import SchemaError, UserError
from agentscope_adapters.storage import migrations
from agentscope_adapters.storage._schema import REVISIONS
from agentscope_cli._db import db

NEEDED = REVISIONS[-1]


@pytest.fixture(params=["sqlite", "postgres"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project on an empty database."""
    configuration = "app: app:App\n"
    if request.param == "postgres":
        configuration += f"session:\n  url: {request.getfixturevalue('postgres_url')}\n"
    (tmp_path / "agentapp.yaml").write_text(configuration)
    return tmp_path


def agentscope_db(*arguments: str) -> Result:
    return CliRunner().invoke(db, arguments, catch_exceptions=False)


def test_a_schema_is_missing_then_upgraded_then_current(project: Path) -> None:
    assert agentscope_db("current", str(project)).output == "none\n"
    missing = agentscope_db("check", str(project))
    assert missing.exit_code == 1
    needs = f"the schema is none and this program needs {NEEDED}; run: agentscope db upgrade\n"
    assert missing.stderr.endswith(needs)

    upgraded = agentscope_db("upgrade", str(project))
    assert upgraded.exit_code == 0
    assert upgraded.output.endswith(f": schema none -> {NEEDED}\n")
    assert agentscope_db("upgrade", str(project)).output.endswith(f": already at {NEEDED}\n")

    assert agentscope_db("current", str(project)).output == f"{NEEDED}\n"
    current = agentscope_db("check", str(project))
    assert current.exit_code == 0
    assert current.output.endswith(f": at {NEEDED}, as needed\n")


def test_the_output_names_the_database_without_its_password(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agentapp.yaml").touch()
    monkeypatch.chdir(tmp_path)

    sqlite = agentscope_db("upgrade", "--set", "session.url=sqlite:///other.db")
    postgres = agentscope_db("upgrade", "--set", f"session.url={postgres_url}")

    assert sqlite.output == f"other.db: schema none -> {NEEDED}\n"
    user, address = postgres_url.removeprefix("postgresql://").split(":", 1)
    assert postgres.output == f"postgresql://{user}@{address.split('@')[-1]}: schema none -> {NEEDED}\n"


def test_a_newer_schema_is_an_error_and_its_revision_can_be_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agentscope_db("upgrade", str(project))
    monkeypatch.setattr(migrations, "REVISIONS", ("0000",))

    assert agentscope_db("current", str(project)).output == f"{NEEDED}\n"
    for command in ("check", "upgrade"):
        with pytest.raises(SchemaError, match="was written by a newer program"):
            agentscope_db(command, str(project))


@pytest.mark.parametrize("command", ["upgrade", "current", "check"])
def test_a_backend_without_a_schema_is_an_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "agentapp.yaml").touch()

    with pytest.raises(UserError, match=r"^session\.backend: memory has no schema"):
        agentscope_db(command, str(tmp_path), "--set", "session.backend=memory")


def alembic(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    configuration = migrations.scripts_configuration(Path(migrations.__file__).parent)
    return subprocess.run(
        [sys.executable, "-m", "alembic", "--config", str(configuration), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_a_developer_runs_alembic_with_a_url(request: pytest.FixtureRequest, tmp_path: Path, backend: str) -> None:
    url = "sqlite:///dev.db" if backend == "sqlite" else str(request.getfixturevalue("postgres_url"))

    for command in (("upgrade", "head"), ("check",), ("downgrade", "base")):
        done = alembic("-x", f"url={url}", *command, folder=tmp_path)
        assert done.returncode == 0, done.stderr

    assert (tmp_path / "dev.db").exists() == (backend == "sqlite")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("upgrade", "head"), "alembic -x url="), (("upgrade", "head", "--sql"), "--sql is not supported")],
    ids=["no url", "offline"],
)
def test_alembic_says_what_it_needs(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = alembic(*arguments, folder=tmp_path)

    assert done.returncode != 0
    assert says in done.stdout + done.stderr
