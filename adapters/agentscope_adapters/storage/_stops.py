"""What requests to end an invocation say to the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from sqlalchemy import Connection, Double, Text, bindparam, delete, false, select, true, update

from agentscope.session import StopReason, StopRequest
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._schema import stop_requests as requests
from agentscope_adapters.storage._topics import STOPS, answer_topic

_THIS = requests.c.request_id == bindparam("this_request", type_=Text)
_ANSWERED: Final = select(requests.c.answered).where(_THIS)
_ANSWER: Final = update(requests).where(_THIS).values(answered=true())
_WITHDRAW: Final = delete(requests).where(_THIS).returning(requests.c.answered)


class StopStatements:
    """Works on requests, inside transactions that the caller begins and ends."""

    def __init__(self, dialect: Dialect) -> None:
        self._announce = dialect.announce
        self._ask = (
            dialect.insert(requests)
            .values(
                request_id=bindparam("this_request", type_=Text),
                session_id=bindparam("of_session", type_=Text),
                owner=bindparam("of_owner", type_=Text),
                reason=bindparam("why", type_=Text),
                answered=false(),
                expires_at=dialect.now + bindparam("ttl", type_=Double),
            )
            .on_conflict_do_nothing()
        )
        self._waiting = (
            select(requests.c.request_id, requests.c.session_id, requests.c.reason, requests.c.owner)
            .where(requests.c.expires_at > dialect.now, requests.c.answered.is_(false()))
            .order_by(requests.c.expires_at)
        )
        self._remove_expired = delete(requests).where(requests.c.expires_at <= dialect.now)

    def ask(self, connection: Connection, request: StopRequest, ttl: float) -> None:
        """See ``InvocationStore.request_stop``."""
        binds = {
            "this_request": request.request_id,
            "of_session": request.session_id,
            "of_owner": request.owner,
            "why": request.reason,
            "ttl": ttl,
        }
        connection.execute(self._ask, binds)
        self._announce(connection, [STOPS])

    def waiting(self, connection: Connection) -> Sequence[StopRequest]:
        """See ``InvocationStore.stop_requests``."""
        return [
            StopRequest(request_id, session_id, cast(StopReason, reason), owner)
            for request_id, session_id, reason, owner in connection.execute(self._waiting)
        ]

    def answer(self, connection: Connection, request_id: str) -> None:
        """See ``InvocationStore.answer_stop``."""
        if connection.execute(_ANSWER, {"this_request": request_id}).rowcount:
            self._announce(connection, [answer_topic(request_id)])

    def is_answered(self, connection: Connection, request_id: str) -> bool:
        """See ``InvocationStore.is_stop_answered``."""
        return bool(connection.execute(_ANSWERED, {"this_request": request_id}).scalar())

    def withdraw(self, connection: Connection, request_id: str) -> bool | None:
        """Whether the request was answered, None when there is none. It is deleted, and so are all that expired."""
        answered = connection.execute(_WITHDRAW, {"this_request": request_id}).scalar()
        connection.execute(self._remove_expired)
        return answered


class Withdraw:
    """Withdrawing one request, which may be tried again when its outcome was lost."""

    def __init__(self, statements: StopStatements, request_id: str) -> None:
        self._statements = statements
        self._request_id = request_id
        self._was_answered = False

    def __call__(self, connection: Connection) -> bool:
        """See ``InvocationStore.withdraw_stop``."""
        answered = self._statements.withdraw(connection, self._request_id)
        if answered is not None:
            self._was_answered = answered
        return self._was_answered
