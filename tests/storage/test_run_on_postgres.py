"""``agentscope run`` on Postgres: the schema first, and no password in what it says."""

from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from postgres import PostgresServer
from processes import agentscope, running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that answers nothing."""
    (tmp_path / "agentapp.yaml").write_text("models: {}\n")
    (tmp_path / "app.py").write_text("from agentscope.runtime import AgentApp\nclass App(AgentApp): pass\n")
    return tmp_path


@pytest.mark.parametrize("form", ["user:password@", "query"])
def test_a_server_starts_on_an_upgraded_schema_and_does_not_show_the_password(
    project: Path, postgres_server: PostgresServer, postgres_url: str, form: str
) -> None:
    parts = urlsplit(postgres_url)
    assert parts.username is not None
    url = postgres_url
    if form == "query":
        url = f"postgresql://{parts.hostname}:{parts.port}{parts.path}?user={parts.username}"
        url += f"&password={quote(postgres_server.password)}"
    variables = {"AGENTSCOPE_SESSION__URL": url}
    refused = agentscope("run", project, "--port", "0", **variables)
    assert refused.returncode == 2
    assert "agentscope db upgrade" in refused.stderr
    upgraded = agentscope("db", "upgrade", project, **variables)
    assert upgraded.returncode == 0, upgraded.stderr
    with running(project, **variables) as server:
        said = server.stop()
    assert f"{parts.hostname}:{parts.port}{parts.path}" in said
    for text in (refused.stderr, upgraded.stdout, said):
        assert postgres_server.password not in text
