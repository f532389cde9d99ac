"""How long to wait before the platform is asked again. ``random`` gives numbers from 0 up to 1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Random = Callable[[], float]

_MOST_DOUBLINGS: Final = 32
_MOST_OF_INTERVAL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The defaults are those of production."""

    answer: float = 10.0
    """How long one request may take."""
    farewell: float = 0.9
    """How long the last heartbeat may: less than what closes has after a second signal."""
    first_pause: float = 1.0
    """How long after a first failure, unless heartbeats are more frequent than that."""
    longest_pause: float = 300.0
    """How long after many."""


def until_next(interval: float, random: Random) -> float:
    """Seconds from one heartbeat to the next: the interval, up to a tenth more or less.

    Instances that were started together are not to speak together.
    """
    return interval * (1.0 + _MOST_OF_INTERVAL * (2.0 * random() - 1.0))


def after_failure(
    failures: int, interval: float, timing: Timing, random: Random, *, retry_after: float | None = None
) -> float:
    """Seconds until it is tried again after ``failures`` in a row, 1 or more.

    The pause doubles with each, from the first to the longest, and is shorter by up to its half, at random.
    ``retry_after`` is what the platform wants it to be at least, None when it did not say: it is honoured up to the
    longest pause.
    """
    pause = min(timing.first_pause, interval) * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)
    pause = min(pause, timing.longest_pause) * (1.0 - random() / 2.0)
    if retry_after is not None:
        # A little more, for all were told the same.
        pause = max(pause, retry_after * (1.0 + _MOST_OF_INTERVAL * random()))
    return min(pause, timing.longest_pause)
