"""What can be waited for, and how often to look whether it has happened."""

from hashlib import sha256
from typing import Final, NamedTuple

_LONGEST: Final = 1000
"""Bytes of an id in a topic's name. Postgres takes 8,000 in a notification."""


class Pauses(NamedTuple):
    """Between two looks, in seconds: the first, after which they grow, and the longest."""

    first: float
    longest: float

    def pause(self, attempt: int) -> float:
        """That after so many others."""
        return min(self.first * 2.0 ** min(attempt, 20), self.longest)


class Topic(NamedTuple):
    """Something that happens again and again. ``name`` tells it from all others.

    ``untold`` is how often to look where nobody tells of it, ``told`` where it is told: something may happen of which
    nobody tells, such as that a time is over.
    """

    name: str
    untold: Pauses
    told: Pauses


_SOON: Final = Pauses(0.005, 0.1)

STOPS: Final = Topic("stops", Pauses(0.2, 0.2), Pauses(2.0, 2.0))
"""Someone asks for the end of an invocation. All processes wait for it, all the time."""


def lease_topic(session_id: str) -> Topic:
    """It is worth to ask for the session's lease."""
    return Topic(_name("session", session_id), _SOON, Pauses(0.1, 0.5))


def lines_topic(invocation_id: str) -> Topic:
    """An invocation has further lines."""
    return Topic(_name("invocation", invocation_id), Pauses(0.005, 0.25), Pauses(0.1, 2.0))


def answer_topic(request_id: str) -> Topic:
    """A request to end an invocation is answered."""
    return Topic(_name("answer", request_id), _SOON, Pauses(0.1, 0.5))


def _name(kind: str, of: str) -> str:
    encoded = of.encode(errors="surrogatepass")
    if len(encoded) > _LONGEST:
        # No id of another kind begins like this.
        return f"{kind}#{sha256(encoded).hexdigest()}"
    return f"{kind} {of}"
