"""The items of lists as rows of their own, leases, and the sizes of what is stored.

States stay as they are: a list in one becomes rows when its session is next saved. The way back puts the rows into
the states again, so that nothing is lost.
"""

import json
import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MODULES = sa.table(
    "session_modules",
    sa.column("session_id", sa.Text),
    sa.column("name", sa.Text),
    sa.column("state", sa.Text),
    sa.column("lists", sa.Text),
)
_ITEMS = sa.table(
    "session_items",
    sa.column("session_id", sa.Text),
    sa.column("module", sa.Text),
    sa.column("pointer", sa.Text),
    sa.column("position", sa.BigInteger),
    sa.column("item", sa.Text),
)


def upgrade() -> None:
    # The constant defaults make this a change of the catalogue alone, on both databases.
    op.add_column("sessions", sa.Column("fence", sa.BigInteger(), nullable=False, server_default="1"))
    op.add_column("sessions", sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("session_modules", sa.Column("lists", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("session_modules", sa.Column("fence", sa.BigInteger(), nullable=False, server_default="1"))
    op.add_column("session_modules", sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    postgres = op.get_bind().dialect.name == "postgresql"
    size = "octet_length(state)" if postgres else "length(CAST(state AS BLOB))"
    op.execute(f"UPDATE session_modules SET size_bytes = {size}")
    op.execute(
        "UPDATE sessions SET size_bytes = (SELECT coalesce(sum(session_modules.size_bytes), 0)"
        " FROM session_modules WHERE session_modules.session_id = sessions.session_id)"
    )
    # Under another name, so that a server of the version before, which still runs, fails: it would take a list whose
    # items are rows for an empty one, and its turns would be lost.
    op.execute("ALTER TABLE session_modules RENAME COLUMN state TO head")
    op.create_index("sessions_updated_at_idx", "sessions", ["updated_at"])
    op.create_table(
        "session_items",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("pointer", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name="session_items_session_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "module", "pointer", "position", name="session_items_pkey"),
    )
    op.create_table(
        "session_leases",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.Double[float](), nullable=False),
        sa.Column("next_owner", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("session_id", name="session_leases_pkey"),
        prefixes=["UNLOGGED"] if postgres else [],
    )


def downgrade() -> None:
    op.execute("ALTER TABLE session_modules RENAME COLUMN head TO state")
    _fold_items(op.get_bind())
    op.drop_table("session_leases")
    op.drop_table("session_items")
    op.drop_index("sessions_updated_at_idx", table_name="sessions")
    for column in ("lists", "fence", "size_bytes"):
        op.drop_column("session_modules", column)
    for column in ("fence", "size_bytes"):
        op.drop_column("sessions", column)


def _fold_items(connection: sa.Connection) -> None:
    """Put the rows of every list into its module's state, one module in memory at a time."""
    key = sa.tuple_(_MODULES.c.session_id, _MODULES.c.name)
    with_lists = sa.select(_MODULES).where(_MODULES.c.lists != "{}").order_by(_MODULES.c.session_id, _MODULES.c.name)
    found = connection.execute(with_lists.limit(1)).first()
    while found is not None:
        state = _with_lists(connection, found)
        this = (_MODULES.c.session_id == found.session_id) & (_MODULES.c.name == found.name)
        connection.execute(sa.update(_MODULES).where(this).values(state=state))
        after = with_lists.where(key > sa.tuple_(sa.literal(found.session_id), sa.literal(found.name)))
        found = connection.execute(after.limit(1)).first()


def _with_lists(connection: sa.Connection, module: sa.Row[Any]) -> str:
    # The items are spliced in as text: they come back character for character, and need not be understood.
    state, texts = json.loads(module.state), dict[str, str]()
    # An outer list comes before one inside it.
    for pointer in sorted(json.loads(module.lists)):
        mark = secrets.token_hex(16)
        state = _placed(state, pointer, mark)
        texts[f'"{mark}"'] = _list_text(connection, module, pointer)
    text = _dumped(state)
    for mark, items in texts.items():
        text = text.replace(mark, items, 1)
    return text


def _list_text(connection: sa.Connection, module: sa.Row[Any], pointer: str) -> str:
    items = (
        sa.select(_ITEMS.c.item)
        .where(_ITEMS.c.session_id == module.session_id, _ITEMS.c.module == module.name, _ITEMS.c.pointer == pointer)
        .order_by(_ITEMS.c.position)
    )
    return f"[{','.join(connection.execute(items).scalars())}]"


def _placed(state: Any, pointer: str, value: str) -> Any:
    """``state`` with ``value`` at the JSON pointer."""
    if not pointer:
        return value
    *parents, last = (token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))
    holder = state
    for token in parents:
        holder = holder[int(token) if type(holder) is list else token]
    holder[int(last) if type(holder) is list else last] = value
    return state


def _dumped(state: Any) -> str:
    text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair is only text as an escape.
        return json.dumps(state, separators=(",", ":"))
    return text
