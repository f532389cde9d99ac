"""The table that is printed: each row a ratio, beside its limit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeVar

_T = TypeVar("_T")

_COLUMNS = "{:<46} {:>12} {:>12} {:>7} {:>8}  {}"
HEADER = _COLUMNS.format("what", "ours", "reference", "ratio", "limit", "").rstrip()


@dataclass(frozen=True)
class Row:
    """One thing measured in turns, ours and the reference: ``ours[n]`` and ``reference[n]`` belong together.

    ``bound`` says on which side of ``limit`` the ratio should be; a ``limit`` of None is a row for information.
    """

    what: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float]
    limit: float | None = None
    bound: Literal["≤", "≥"] = "≤"

    @property
    def ratio(self) -> float:
        """The median of the ratios of the turns: what else the machine did in a turn touched both of its sides."""
        return median(ours / reference for ours, reference in zip(self.ours, self.reference, strict=True))

    @property
    def verdict(self) -> str:
        """``ok``, ``over`` or ``under``; nothing without a limit."""
        if self.limit is None:
            return ""
        if self.bound == "≤":
            return "ok" if self.ratio <= self.limit else "over"
        return "ok" if self.ratio >= self.limit else "under"

    def __str__(self) -> str:
        limit = "" if self.limit is None else f"{self.bound} {self.limit:.2f}"
        ours, reference = (_shown(median(side), self.unit) for side in (self.ours, self.reference))
        return _COLUMNS.format(self.what, ours, reference, f"{self.ratio:.2f}", limit, self.verdict).rstrip()


def take_turns(ours: Callable[[], _T], reference: Callable[[], _T], turns: int) -> tuple[list[_T], list[_T]]:
    """Measure the one and the other that many times, in turns: a noisy machine is noisy for both."""
    pairs = [(ours(), reference()) for _ in range(turns)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _shown(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.{0 if value >= 0.1 else 1}f} ms"
    return f"{value:.{0 if value >= 100 else 1}f} {unit}"
