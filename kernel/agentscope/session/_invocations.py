"""The port: what processes that share a store tell each other of invocations, and their lines, kept for a while.

The lines of an invocation are numbered from 1. They are text without line breaks and NUL, and mean nothing to the
store.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from agentscope.session._port import Pause

StopReason = Literal["cancelled", "replaced"]


@dataclass(frozen=True, slots=True)
class InvocationRecord:
    """What is kept of an invocation, beside its lines.

    ``owner`` is whose session it was started on, None where sessions have no owners. ``idempotency_key`` is the
    client's, None when it sent none; one key is one invocation of its session. ``fingerprint`` tells its request from
    others.
    """

    invocation_id: str
    session_id: str
    owner: str | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class LineBatch:
    """Lines of one invocation, the first of which has the number ``start``. ``ends`` says that no more will come."""

    invocation_id: str
    start: int
    lines: Sequence[str]
    ends: bool = False


@dataclass(frozen=True, slots=True)
class LinePage:
    """Lines from one read, in order and without a gap, those after the number that was asked for.

    ``state`` tells, once the last of these is read, whether more may come: ``running`` while its process renews the
    invocation or there are more already, ``ended`` when the last line there will be is the last of this page,
    ``abandoned`` when the process that ran it is gone, or lines were lost when the store crashed, and there is no end.
    """

    lines: Sequence[str]
    state: Literal["running", "ended", "abandoned"]


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Someone asks the process that runs a session's invocation to end it.

    ``owner`` is whose session it has to be; None asks for anybody's.
    """

    request_id: str
    session_id: str
    reason: StopReason
    owner: str | None = None


@runtime_checkable
class InvocationStore(Protocol):
    """Where invocations are known to all who share the store. All of one change lands or none of it.

    Every call raises ``SessionStoreError`` when the store fails or can't be reached.
    """

    async def open_invocation(self, record: InvocationRecord, alive: float, kept: float) -> InvocationRecord | None:
        """Keep the record, and return None. It counts as running for ``alive`` seconds, unless it is renewed.

        The record and its lines go ``kept`` seconds after the invocation has ended, or has ceased to be alive. When
        the session has an invocation of that idempotency key, return that one, and keep nothing. A record that is
        there already, because its first outcome was lost, is kept once.
        """
        ...

    async def append_lines(self, batches: Collection[LineBatch], alive: float) -> None:
        """Keep these lines, each batch following on the one before.

        Those of an invocation that is unknown or has ended are dropped. One that does not end with them counts as
        running for another ``alive`` seconds. Whoever watches one of them is woken. Lines that are there already,
        because their first outcome was lost, are kept once, also when more have come to their batch since.
        """
        ...

    async def renew_invocations(self, invocation_ids: Collection[str], alive: float) -> None:
        """Let those that have not ended count as running for another ``alive`` seconds."""
        ...

    async def find_invocation(self, invocation_id: str) -> InvocationRecord | None:
        """What is known of an invocation; None when it is not kept, or not any more."""
        ...

    async def read_lines(self, invocation_id: str, after: int) -> LinePage | None:
        """The lines with a number greater than ``after``, at least one batch if there is any; None as above.

        A page holds about a MiB at most, unless a single batch is larger.
        """
        ...

    async def forget_invocations(self, invocation_ids: Collection[str]) -> None:
        """Delete these, and all of their lines."""
        ...

    async def prune_invocations(self, limit: int = 100) -> int:
        """Delete up to ``limit`` of those whose time is over, ended or abandoned; return how many.

        May stop earlier when they are large: none are left when it is 0.
        """
        ...

    def watch_invocation(self, invocation_id: str) -> AbstractContextManager[Pause]:
        """Waiting for further lines, between two reads."""
        ...

    async def request_stop(self, request: StopRequest, ttl: float) -> None:
        """Leave a request for ``ttl`` seconds, and wake all who watch for them."""
        ...

    async def stop_requests(self) -> Sequence[StopRequest]:
        """The requests that nobody has answered yet, whose time is not over."""
        ...

    async def answer_stop(self, request_id: str) -> None:
        """Say that the invocation was asked to end; whoever watches this request is woken."""
        ...

    async def withdraw_stop(self, request_id: str) -> bool:
        """Delete a request, also those of others whose time is over; True when it was answered."""
        ...

    async def is_stop_answered(self, request_id: str) -> bool:
        """Whether some process has asked the invocation to end."""
        ...

    def watch_stops(self, request_id: str | None = None) -> AbstractContextManager[Pause]:
        """Waiting for new requests, or for the answer to the one that is named."""
        ...
