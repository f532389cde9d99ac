"""Where ``session.url`` points to."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from agentscope.errors import UserError

_FORMS = "sqlite:///file.db or postgresql://user:password@host:5432/database"


@dataclass(frozen=True, slots=True)
class SqliteLocation:
    """A database file. ``label`` is its path as a user would write it, from inside the project."""

    path: Path
    label: str
    in_default_folder: bool


@dataclass(frozen=True, slots=True)
class PostgresLocation:
    """A server's database. ``dsn`` is a libpq URL and may hold a password; ``label`` is the URL without it."""

    dsn: str = field(repr=False)
    label: str


def locate(url: SecretStr | None, project: Path) -> SqliteLocation | PostgresLocation:
    """What ``session.url`` means; None is the file in the project. A relative file is relative to the project.

    Raises ``UserError`` for a URL that can't be used. Its text never holds the password.
    """
    if url is None:
        return SqliteLocation(project / ".agentscope" / "sessions.db", ".agentscope/sessions.db", True)
    try:
        parsed = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        # Not chained: the cause's text may quote the URL.
        raise UserError(
            f"session.url: not a database URL; write {_FORMS} and percent-encode special characters in the password"
        ) from None
    dialect, _, driver = parsed.drivername.partition("+")
    if dialect == "sqlite" and driver in ("", "aiosqlite", "pysqlite"):
        return _sqlite(parsed, project)
    if dialect in ("postgresql", "postgres") and driver in ("", "asyncpg"):
        return _postgres(parsed)
    raise UserError(f"session.url: {parsed.drivername} is not supported; write {_FORMS}")


def _sqlite(url: URL, project: Path) -> SqliteLocation:
    if url.host or url.username or url.query:
        raise UserError(
            "session.url: an SQLite URL is a path alone: sqlite:///relative/to/project.db or sqlite:////absolute.db"
        )
    if url.database in (None, "", ":memory:"):
        raise UserError(
            "session.url: an SQLite database in memory would be lost at exit; "
            "name a file (sqlite:///sessions.db), or set session.backend: memory"
        )
    return SqliteLocation(project / url.database, url.database, False)


def _postgres(url: URL) -> PostgresLocation:
    # An @ in a password ends it early, and the password's rest becomes the host's or the database's name.
    if "@" in f"{url.host}{url.database}":
        raise UserError("session.url: write an @ in the user or the password as %40")
    # SQLAlchemy's own spelling of libpq's option.
    query = {"sslmode" if name == "ssl" else name: value for name, value in url.query.items()}
    return PostgresLocation(
        dsn=url.set(drivername="postgresql", query=query).render_as_string(hide_password=False),
        label=URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string(),
    )
