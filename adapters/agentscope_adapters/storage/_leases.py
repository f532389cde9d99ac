"""What taking, renewing and releasing leases say to the database."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Executable,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    null,
    or_,
    select,
    update,
)

from agentscope.session import Claim, Lease
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._schema import session_leases as leases
from agentscope_adapters.storage._schema import sessions
from agentscope_adapters.storage._statements import chunks, padded, read_revision
from agentscope_adapters.storage._topics import lease_topic

HAND_OVER_SECONDS: Final = 2.0
"""How long a claim that is given a lease has to take it."""

_CHUNK: Final = 256
"""Claims in one statement."""

_CLAIM = (leases.c.session_id, leases.c.owner)
_OF_CLAIMS = and_(
    leases.c.session_id.in_(bindparam("session_ids", expanding=True)),
    leases.c.owner.in_(bindparam("owners", expanding=True)),
)
_THIS = leases.c.session_id == bindparam("lease_id")

_FREE_ONE = (
    delete(leases)
    .where(_THIS, leases.c.owner == bindparam("lease_owner"), leases.c.next_owner.is_(None))
    .returning(*_CLAIM)
)
_LOCK = (
    select(leases.c.session_id, leases.c.owner, leases.c.next_owner)
    .where(leases.c.session_id.in_(bindparam("session_ids", expanding=True)))
    .order_by(leases.c.session_id)
    .with_for_update()
)
_FREE = delete(leases).where(_THIS)
_GIVE_UP = update(leases).where(_THIS).values(next_owner=None)


def _ordered(condition: ColumnElement[bool]) -> Select[Any]:
    """Locks the leases in one order, so that two that lock each other's don't wait in a circle."""
    return select(leases.c.session_id).where(condition).order_by(leases.c.session_id).with_for_update()


_FREE_MANY = (
    delete(leases)
    .where(leases.c.session_id.in_(_ordered(and_(_OF_CLAIMS, leases.c.next_owner.is_(None)))))
    .returning(*_CLAIM)
)


class LeaseStatements:
    """Works on leases, inside transactions that the caller begins and ends."""

    def __init__(self, dialect: Dialect) -> None:
        self._announce = dialect.announce
        self._take = _take(dialect)
        self._renew = (
            update(leases)
            .where(leases.c.session_id.in_(_ordered(and_(_OF_CLAIMS, leases.c.expires_at > dialect.now))))
            .values(expires_at=dialect.now + bindparam("ttl", type_=Double))
            .returning(*_CLAIM)
        )
        self._hand_over = (
            update(leases)
            .where(_THIS)
            .values(owner=leases.c.next_owner, next_owner=None, expires_at=dialect.now + HAND_OVER_SECONDS)
        )

    def take(self, connection: Connection, claim: Claim, ttl: float, *, waits: bool) -> Lease | None:
        """The claim's lease; None when another has it. Every statement must see the moment it runs in."""
        binds = {"taken_id": claim.session_id, "taker": claim.owner, "ttl": ttl, "waits": waits}
        while True:
            row = connection.execute(self._take, binds).first()
            if row is None or row.owner != claim.owner:
                return None
            # A statement of its own: the one before may have waited for the former holder, and seen what was before.
            revision = read_revision(connection, claim.session_id)
            if revision.fence < row.fence:
                return Lease(claim, row.fence, revision)

    def renew(self, connection: Connection, claims: Collection[Claim], ttl: float) -> list[Claim]:
        """Those of the claims that have a live lease, which then lasts for ``ttl`` seconds."""
        renewed = _found(connection, self._renew, claims, {"ttl": ttl})
        return [claim for claim in claims if claim in renewed]

    def free(self, connection: Connection, claims: Collection[Claim]) -> list[Claim]:
        """Release the leases that nobody waits for, in one statement, and return the other claims."""
        if len(claims) == 1:
            (claim,) = claims
            binds = {"lease_id": claim.session_id, "lease_owner": claim.owner}
            return [] if connection.execute(_FREE_ONE, binds).first() else [claim]
        freed = _found(connection, _FREE_MANY, claims, {})
        return [claim for claim in claims if claim not in freed]

    def release(self, connection: Connection, claims: Collection[Claim]) -> None:
        """Hand over the leases that another waits for, free the others, and give up the places of those that wait."""
        handed, freed, given_up = list[str](), list[str](), list[str]()
        released = set(claims)
        for session_ids in chunks(dict.fromkeys(claim.session_id for claim in claims), _CHUNK):
            for session_id, owner, next_owner in connection.execute(_LOCK, {"session_ids": padded(session_ids)}):
                is_waited_for = next_owner is not None and Claim(session_id, next_owner) not in released
                if Claim(session_id, owner) in released:
                    (handed if is_waited_for else freed).append(session_id)
                elif next_owner is not None and not is_waited_for:
                    given_up.append(session_id)
        for statement, session_ids in ((self._hand_over, handed), (_FREE, freed), (_GIVE_UP, given_up)):
            if session_ids:
                connection.execute(statement, [{"lease_id": session_id} for session_id in session_ids])
        # Who waits behind one that gave up may have its place.
        self._announce(connection, [lease_topic(session_id) for session_id in (*handed, *freed, *given_up)])


def _found(
    connection: Connection, statement: Executable, claims: Collection[Claim], binds: dict[str, Any]
) -> set[Claim]:
    """The claims whose rows a statement returns."""
    found = set[Claim]()
    for chunk in chunks(claims, _CHUNK):
        of_claims = {
            "session_ids": padded([claim.session_id for claim in chunk]),
            "owners": padded([claim.owner for claim in chunk]),
        }
        rows = connection.execute(statement, binds | of_claims)
        found.update(Claim(session_id, owner) for session_id, owner in rows)
    return found


def _take(dialect: Dialect) -> Executable:
    """Makes the lease, takes it over, or takes the place of the next: whichever the stored row allows."""
    session_id, taker = bindparam("taken_id", type_=Text), bindparam("taker", type_=Text)
    stored = select(sessions.c.fence + 1).where(sessions.c.session_id == session_id).scalar_subquery()
    clock = cast(dialect.now * 1_000_000, BigInteger)
    insert = dialect.insert(leases).values(
        session_id=session_id,
        owner=taker,
        fence=dialect.greatest(clock, func.coalesce(stored, 0)),
        expires_at=dialect.now + bindparam("ttl", type_=Double),
        next_owner=null(),
    )
    new = insert.excluded
    expired, mine = leases.c.expires_at <= dialect.now, leases.c.owner == new.owner
    takes = or_(expired, mine)
    return insert.on_conflict_do_update(
        index_elements=["session_id"],
        set_={
            "owner": case((takes, new.owner), else_=leases.c.owner),
            "fence": case((takes, dialect.greatest(new.fence, leases.c.fence + 1)), else_=leases.c.fence),
            "expires_at": case((takes, new.expires_at), else_=leases.c.expires_at),
            # Who waits for a lease that is taken once more by its holder keeps its place.
            "next_owner": case((expired, null()), (mine, leases.c.next_owner), else_=new.owner),
        },
        where=or_(takes, and_(bindparam("waits", type_=Boolean), leases.c.next_owner.is_(None))),
    ).returning(leases.c.owner, leases.c.fence)
