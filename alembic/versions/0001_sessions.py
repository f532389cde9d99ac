"""Sessions, and the state of their modules as one row each."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="sessions_pkey"),
    )
    op.create_table(
        "session_modules",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name="session_modules_session_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "name", name="session_modules_pkey"),
    )


def downgrade() -> None:
    op.drop_table("session_modules")
    op.drop_table("sessions")
