"""Reloads that a platform asks for, under load; ``faults.reloading`` is the long run of it."""

from faults.reloading import reload_under_load


async def test_no_invocation_fails_while_a_platform_in_trouble_asks_for_reloads() -> None:
    report = await reload_under_load(8)
    assert report.reloads == 8
    assert set(report.outcomes) == {"whole"}, report
    assert report.memory[-1] <= report.memory[0] * 1.5, report
