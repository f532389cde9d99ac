"""When a platform is asked again."""

from datetime import UTC, datetime, timedelta
from random import Random
from statistics import mean, pstdev

import pytest

from agentscope_adapters.platform._client import retry_after
from agentscope_adapters.platform._pauses import Timing, after_failure, until_next

PRODUCTION = Timing()
NOW = datetime(2026, 1, 15, 10, 30, 0, tzinfo=UTC)


def test_heartbeats_are_spread_evenly_over_a_tenth_of_the_interval_around_it() -> None:
    random = Random(6).random
    pauses = [until_next(30.0, random) for _ in range(10_000)]
    assert 27.0 <= min(pauses) < 27.01
    assert 32.99 < max(pauses) <= 33.0
    # Of an even spread: the middle, and a width of 6 / sqrt(12).
    assert mean(pauses) == pytest.approx(30.0, abs=0.1)
    assert pstdev(pauses) == pytest.approx(1.732, abs=0.05)


def test_the_pause_doubles_with_each_failure_up_to_five_minutes() -> None:
    pauses = [after_failure(failures, 30.0, PRODUCTION, lambda: 0.0) for failures in range(1, 12)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@pytest.mark.parametrize("failures", [1, 5, 20, 2_000])
def test_instances_that_lost_the_platform_together_come_back_one_by_one(failures: int) -> None:
    random = Random(6).random
    longest = after_failure(failures, 30.0, PRODUCTION, lambda: 0.0)
    pauses = [after_failure(failures, 30.0, PRODUCTION, random) for _ in range(10_000)]
    assert longest / 2 <= min(pauses) < longest * 0.51
    assert longest * 0.99 < max(pauses) <= longest <= 300
    assert mean(pauses) == pytest.approx(longest * 0.75, rel=0.01)


def test_who_speaks_more_often_than_every_second_tries_more_often() -> None:
    assert after_failure(1, 0.25, PRODUCTION, lambda: 0.0) == 0.25
    assert after_failure(3, 0.25, PRODUCTION, lambda: 0.0) == 1.0


def test_what_the_platform_asks_for_is_the_least_but_no_more_than_five_minutes() -> None:
    random = Random(6).random
    for wanted, least, most in [(0.0, 4.0, 8.0), (60.0, 60.0, 66.0), (1e9, 300.0, 300.0)]:
        pauses = [after_failure(4, 30.0, PRODUCTION, random, retry_after=wanted) for _ in range(1_000)]
        assert least <= min(pauses) <= max(pauses) <= most


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("9" * 5000, 999_999_999.0),
        ("Thu, 15 Jan 2026 10:31:30 GMT", 90.0),
        ("Thu, 15 Jan 2026 10:31:30 -0000", 90.0),
        ("Thu, 15 Jan 2026 12:31:30 +0200", 90.0),
        ("Thu, 15 Jan 2026 10:29:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("Thu, 15 Jan 99999 10:31:30 GMT", None),
        ("Thu, 15 Jan 2026 10:31:30 +99999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}, NOW) == seconds


def test_without_the_header_nothing_was_asked_for() -> None:
    assert retry_after({}, NOW) is None


def test_a_date_is_compared_with_the_time_of_now() -> None:
    header = {"Retry-After": (NOW + timedelta(minutes=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")}
    assert retry_after(header, NOW + timedelta(seconds=20)) == 40
