"""Clients that count: what they were told is stored, and whether it is."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from faults.replicas import Serving
from serving import invocation

HANG_SECONDS = 30
"""No answer takes longer, whatever is broken."""

_BACK_OFF_SECONDS = 0.05
_NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt at a turn.

    ``position`` is the turn's place in its session, from 1, when the trailer says that it is done; else ``failure``
    says why not: status and code, or what happened to the connection. ``retry_after`` is the header.
    """

    position: int | None = None
    failure: str = ""
    retry_after: str | None = None

    @property
    def done(self) -> bool:
        """Whether the turn is acknowledged."""
        return self.position is not None


@asynccontextmanager
async def http_client() -> AsyncGenerator[ClientSession]:
    """A client with as many connections as it needs."""
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=HANG_SECONDS)) as client:
        yield client


async def take_turn(
    client: ClientSession, replica: Serving, session_id: str, number: int, **metadata: object
) -> Answer:
    """Ask once for a turn that adds ``number``. Raises ``TimeoutError`` when there is no end to it."""
    body = invocation(str(number), session_id, metadata=metadata)
    try:
        async with client.post(f"{replica.address}/invoke", json=body) as response:
            text = await response.text()
    except TimeoutError:
        raise
    except (ClientError, OSError) as error:
        return Answer(failure=f"{_NO_ANSWER}: {type(error).__name__}")
    lines = [json.loads(line) for line in text.splitlines() if line]
    last: dict[str, Any] = lines[-1] if lines else {}
    if "error" in last:
        failure = f"{response.status} {last['error']['code']}"
        return Answer(failure=failure, retry_after=response.headers.get("Retry-After"))
    if last.get("metadata", {}).get("done") is not True:
        return Answer(failure=f"{response.status} cut")
    return Answer(position=int(lines[-2]["content"]))


async def read_session(client: ClientSession, replica: Serving, session_id: str) -> list[int]:
    """The numbers that are stored, in order; none of a session that was never saved."""
    numbers: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        url = f"{replica.address}/sessions/{session_id}/messages"
        async with client.get(url, params={"limit": "10000", **cursor}) as response:
            if response.status == 404 and not numbers:
                return []
            assert response.status == 200, await response.text()
            page = await response.json()
        numbers += [int(message["content"]) for message in page["messages"]]
        if page["next_cursor"] is None:
            return numbers
        cursor = {"cursor": page["next_cursor"]}


class Load:
    """``clients`` that take turns on ``sessions`` of their own choice, at a replica of their own choice.

    A turn that fails is tried again, at the other replica and as a number of its own: it may have landed.
    """

    def __init__(self, replicas: Sequence[Serving], *, clients: int = 64, sessions: int = 20, seed: int = 1) -> None:
        self.failures: Counter[str] = Counter()
        """How many attempts failed, by failure."""
        self.longest = 0.0
        """Seconds from the first attempt of a turn to its acknowledgement, at most."""
        self.unannounced: list[str] = []
        """The 503s that don't say when to come again."""
        self._replicas = replicas
        self._clients = clients
        self._session_ids = [f"load-{seed}-{number}" for number in range(sessions)]
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._attempted: dict[str, set[int]] = {session_id: set() for session_id in self._session_ids}
        self._acknowledged: dict[str, dict[int, int]] = {session_id: {} for session_id in self._session_ids}
        self._order: dict[tuple[int, str], list[int]] = {}
        self._milestones: dict[int, asyncio.Event] = {}
        self._count = 0
        self._seconds = 0.0
        self._stopping = False

    @property
    def count(self) -> int:
        """How many turns are acknowledged."""
        return self._count

    @asynccontextmanager
    async def running(self, client: ClientSession) -> AsyncGenerator[None]:
        """The load, while the block runs; each client still finishes its turn."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for name in range(self._clients):
                group.create_task(self._talk(client, name))
            try:
                yield
            finally:
                self._stopping = True
        self._seconds = time.monotonic() - started

    async def until(self, count: int) -> None:
        """Return when that many turns are acknowledged."""
        if self._count < count:
            await self._milestones.setdefault(count, asyncio.Event()).wait()

    def refusals(self) -> dict[str, int]:
        """The failures that a replica answered with; the others had no answer, because it was gone."""
        return {failure: count for failure, count in self.failures.items() if not failure.startswith(_NO_ANSWER)}

    async def verify(self, client: ClientSession, replica: Serving) -> None:
        """Every acknowledged turn is stored once, where the answer said; no turn is stored twice."""
        lost = doubled = displaced = unknown = 0
        for session_id in self._session_ids:
            stored = await read_session(client, replica, session_id)
            acknowledged, places = self._acknowledged[session_id], dict(enumerate(stored, 1))
            lost += len(acknowledged.keys() - set(stored))
            doubled += len(stored) - len(set(stored))
            displaced += sum(places.get(position) != number for number, position in acknowledged.items())
            unknown += len(set(stored) - self._attempted[session_id])
            index = {number: place for place, number in places.items()}
            for name in range(self._clients):
                order = [index.get(number, 0) for number in self._order.get((name, session_id), ())]
                assert order == sorted(order), f"{session_id}: not in the order of client {name}: {order}"
        print(f"\n{self.describe()}; lost {lost}, doubled {doubled}")
        assert (lost, doubled, displaced, unknown) == (0, 0, 0, 0)

    def describe(self) -> str:
        """The figures."""
        failures = ", ".join(f"{count} x {failure}" for failure, count in self.failures.most_common()) or "none"
        rate = self._count / self._seconds if self._seconds else 0.0
        return (
            f"{self._count} turns in {self._seconds:.1f} s ({rate:.0f}/s), longest {self.longest:.2f} s, "
            f"failed attempts: {failures}"
        )

    async def _talk(self, client: ClientSession, name: int) -> None:
        while not self._stopping:
            session_id = self._random.choice(self._session_ids)
            chosen = self._random.randrange(len(self._replicas))
            started = time.monotonic()
            while not await self._attempt(client, name, session_id, self._replicas[chosen]):
                await asyncio.sleep(_BACK_OFF_SECONDS)
                chosen = (chosen + 1) % len(self._replicas)
            self.longest = max(self.longest, time.monotonic() - started)

    async def _attempt(self, client: ClientSession, name: int, session_id: str, replica: Serving) -> bool:
        number = next(self._numbers)
        self._attempted[session_id].add(number)
        answer = await take_turn(client, replica, session_id, number)
        if answer.position is None:
            self.failures[answer.failure] += 1
            if answer.failure.startswith("503") and answer.retry_after is None:
                self.unannounced.append(answer.failure)
            return False
        self._acknowledged[session_id][number] = answer.position
        self._order.setdefault((name, session_id), []).append(number)
        self._count += 1
        if self._count in self._milestones:
            self._milestones[self._count].set()
        return True
