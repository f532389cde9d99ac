"""The tables, and the revisions of alembic that lead to them.

The constraints have the names that Postgres would give them, on SQLite too: a migration can only change what has
a name.
"""

from sqlalchemy import BigInteger, Column, DateTime, Double, ForeignKey, Index, MetaData, Table, Text

REVISIONS = ("0001", "0002")
"""Every revision that this program knows, oldest first; the last is the one it needs."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
    }
)


def _session_id() -> Column[str]:
    """The session that a row belongs to and goes with."""
    return Column("session_id", Text, ForeignKey("sessions.session_id", ondelete="CASCADE"), primary_key=True)


# The defaults below are for the rows of the first schema alone: an upgrade need not copy the tables for them. A fence
# of 1 is greater than that of a session never saved, and less than that of every lease.

# The times are bound in UTC. SQLite keeps no zone: what is read there is UTC without saying so.
sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    # That of the lease under which it was last saved.
    Column("fence", BigInteger, nullable=False, server_default="1"),
    # The sum of those of its modules and items.
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Index("sessions_updated_at_idx", "updated_at"),
)

# JSON is kept in TEXT, not JSONB: JSONB reorders keys and refuses \u0000.
session_modules = Table(
    "session_modules",
    metadata,
    _session_id(),
    Column("name", Text, primary_key=True),
    # The state, in which the lists that are rows are empty.
    Column("head", Text, nullable=False),
    # A JSON object: pointer -> fence of the save that last changed items which were there before it.
    Column("lists", Text, nullable=False, server_default="{}"),
    # Of the save that last changed `head` or `lists`.
    Column("fence", BigInteger, nullable=False, server_default="1"),
    # Of `head`, in UTF-8.
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
)

# The size stands before the item: SQLite need not walk through a long text to find what comes after it.
session_items = Table(
    "session_items",
    metadata,
    _session_id(),
    Column("module", Text, primary_key=True),
    Column("pointer", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("item", Text, nullable=False),
)

# A lease may be on a session that does not exist yet, so it refers to none. On Postgres the table is unlogged: taking
# one waits for no disk. It need not outlive a crash of the server: every save also checks what it started from.
session_leases = Table(
    "session_leases",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    # In seconds since 1970, by the database's clock.
    Column("expires_at", Double, nullable=False),
    # Who gets it at its release.
    Column("next_owner", Text),
)

# The one alembic keeps. In its own MetaData: it is no table of ours.
VERSIONS = Table("alembic_version", MetaData(), Column("version_num", Text, primary_key=True))
