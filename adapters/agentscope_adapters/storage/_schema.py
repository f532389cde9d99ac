"""The tables, and the revisions of alembic that lead to them.

The constraints have the names that Postgres would give them, on SQLite too: a migration can only change what has
a name.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

REVISIONS = ("0001", "0002", "0003")
"""Every revision that this program knows, oldest first; the last is the one it needs."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
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
    # Who it belongs to; NULL is nobody.
    Column("owner", Text),
    Index("sessions_updated_at_idx", "updated_at"),
    # Where sessions have no owners it is empty: its migration says so. To say it here would load every driver of both
    # dialects.
    Index("sessions_owner_session_id_idx", "owner", "session_id"),
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

# An invocation may be of a session that is not stored yet, so it refers to none. Its record is not in an unlogged
# table: the idempotency key must outlive a crash, like the turn that is saved after it.
invocations = Table(
    "invocations",
    metadata,
    Column("invocation_id", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("owner", Text),
    Column("idempotency_key", Text),
    Column("fingerprint", Text, nullable=False),
    # Until when it counts as running, in seconds since 1970, by the database's clock. It has no index: then Postgres
    # can write a renewal, of which there are many, beside the row that it replaces.
    Column("alive_until", Double, nullable=False),
    # For how many seconds it is kept, and until when. The latter is NULL while the invocation has not ended.
    Column("kept", Double, nullable=False),
    Column("kept_until", Double),
    UniqueConstraint("session_id", "idempotency_key"),
    Index("invocations_kept_until_idx", "kept_until"),
)

# Those that were written together are one row.
invocation_lines = Table(
    "invocation_lines",
    metadata,
    Column("invocation_id", Text, ForeignKey("invocations.invocation_id", ondelete="CASCADE"), primary_key=True),
    # The number of the first of them.
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("line_count", BigInteger, nullable=False),
    # Of `lines`, in UTF-8; before it, as that of an item.
    Column("size_bytes", BigInteger, nullable=False),
    # With a line break between each two.
    Column("lines", Text, nullable=False),
)

# On Postgres unlogged, like leases: whoever asks waits for seconds only, and may ask again.
stop_requests = Table(
    "stop_requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("owner", Text),
    Column("reason", Text, nullable=False),
    Column("answered", Boolean, nullable=False),
    # In seconds since 1970, by the database's clock.
    Column("expires_at", Double, nullable=False),
    Index("stop_requests_expires_at_idx", "expires_at"),
)

# The one alembic keeps. In its own MetaData: it is no table of ours.
VERSIONS = Table("alembic_version", MetaData(), Column("version_num", Text, primary_key=True))
