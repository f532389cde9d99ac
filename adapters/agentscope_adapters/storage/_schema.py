"""The tables, and the revisions of alembic that lead to them.

The constraints have the names that Postgres would give them, on SQLite too: a migration can only change what has
a name.
"""

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, MetaData, Table, Text

REVISIONS = ("0001",)
"""Every revision that this program knows, oldest first; the last is the one it needs."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
    }
)

# The times are bound in UTC. SQLite keeps no zone: what is read there is UTC without saying so.
sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

# `state` is JSON in TEXT, not JSONB: JSONB reorders keys and refuses \u0000.
session_modules = Table(
    "session_modules",
    metadata,
    Column("session_id", Text, ForeignKey("sessions.session_id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
)
