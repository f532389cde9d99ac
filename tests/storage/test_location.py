"""What ``session.url`` may be."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from agentscope.errors import UserError
from agentscope_adapters.storage._location import PostgresLocation, SqliteLocation, locate


def test_no_url_is_a_file_in_the_project(tmp_path: Path) -> None:
    location = locate(None, tmp_path)

    assert isinstance(location, SqliteLocation)
    assert location.path == tmp_path / ".agentscope" / "sessions.db"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data.db", "project/data.db"),
        ("sqlite:///../data.db", "project/../data.db"),
        ("sqlite+aiosqlite:///sub/data.db", "project/sub/data.db"),
        ("sqlite:////var/lib/data.db", "/var/lib/data.db"),
    ],
    ids=["relative", "outside", "driver", "absolute"],
)
def test_a_relative_sqlite_file_is_relative_to_the_project(url: str, path: str) -> None:
    location = locate(SecretStr(url), Path("project"))

    assert isinstance(location, SqliteLocation)
    assert location.path == Path(path)


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql://u:s@h:5432/d", "postgresql://u:s@h:5432/d"),
        ("postgres://u:s@h/d", "postgresql://u:s@h/d"),
        ("postgresql+asyncpg://u:s@h/d", "postgresql://u:s@h/d"),
        ("postgresql://u:a%2Fb%40c@h/d", "postgresql://u:a%2Fb%40c@h/d"),
        ("postgresql://u:a/b@h/d", "postgresql://u:a%2Fb@h/d"),
        ("postgresql://u:s@h/d?sslmode=require", "postgresql://u:s@h/d?sslmode=require"),
        ("postgresql+asyncpg://u:s@h/d?ssl=require", "postgresql://u:s@h/d?sslmode=require"),
        ("postgresql:///d?host=/run/postgresql", "postgresql:///d?host=%2Frun%2Fpostgresql"),
    ],
    ids=["plain", "postgres", "driver", "escaped", "slash in password", "sslmode", "ssl", "socket"],
)
def test_a_postgres_url_becomes_one_that_asyncpg_reads(url: str, dsn: str) -> None:
    location = locate(SecretStr(url), Path("project"))

    assert isinstance(location, PostgresLocation)
    assert location.dsn == dsn


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/d",
        "postgresql://user:secret@host:5432/d?password=secret&sslpassword=secret",
        "postgresql:///d?user=u&password=secret",
    ],
    ids=["user info", "both", "query"],
)
def test_a_location_does_not_show_its_password(url: str) -> None:
    location = locate(SecretStr(url), Path("project"))

    assert "secret" not in location.label
    assert "secret" not in repr(location)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("secret", "not a database URL"),
        ("postgresql://u:secret@h:port/d", "not a database URL"),
        ("postgresql://u:p@secret@h/d", "%40"),
        ("postgresql://u:p@secret/w@h/d", "%40"),
        ("mysql://u:secret@h/d", "mysql is not supported"),
        ("postgresql+psycopg://u:secret@h/d", r"postgresql\+psycopg is not supported"),
        ("sqlite://", "session.backend: memory"),
        ("sqlite:///:memory:", "session.backend: memory"),
        ("sqlite://sessions.db", "sqlite:///relative"),
        ("sqlite:///sessions.db?mode=ro", "sqlite:///relative"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"^session\.url: .*{says}") as caught:
        locate(SecretStr(url), Path("project"))

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
