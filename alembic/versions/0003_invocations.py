"""Sessions that belong to somebody, and what processes tell each other of invocations.

Sessions that are there belong to nobody. The way back forgets whose the sessions are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    owned = sa.text("owner IS NOT NULL")
    op.add_column("sessions", sa.Column("owner", sa.Text(), nullable=True))
    op.create_index(
        "sessions_owner_session_id_idx",
        "sessions",
        ["owner", "session_id"],
        sqlite_where=owned,
        postgresql_where=owned,
    )
    op.create_table(
        "invocations",
        sa.Column("invocation_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("alive_until", sa.Double[float](), nullable=False),
        sa.Column("kept", sa.Double[float](), nullable=False),
        sa.Column("kept_until", sa.Double[float](), nullable=True),
        sa.PrimaryKeyConstraint("invocation_id", name="invocations_pkey"),
        sa.UniqueConstraint("session_id", "idempotency_key", name="invocations_session_id_idempotency_key_key"),
    )
    op.create_index("invocations_kept_until_idx", "invocations", ["kept_until"])
    op.create_table(
        "invocation_lines",
        sa.Column("invocation_id", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("line_count", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invocation_id"],
            ["invocations.invocation_id"],
            name="invocation_lines_invocation_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("invocation_id", "start", name="invocation_lines_pkey"),
    )
    op.create_table(
        "stop_requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.Double[float](), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="stop_requests_pkey"),
        prefixes=["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else [],
    )
    op.create_index("stop_requests_expires_at_idx", "stop_requests", ["expires_at"])


def downgrade() -> None:
    op.drop_table("stop_requests")
    op.drop_table("invocation_lines")
    op.drop_table("invocations")
    op.drop_index("sessions_owner_session_id_idx", table_name="sessions")
    op.drop_column("sessions", "owner")
