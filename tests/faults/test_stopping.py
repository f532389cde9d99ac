"""A server with workers stops under load, and no request is lost."""

from pathlib import Path

from faults.stopping import NOT_LOST, WARM, WHOLE, WORKERS, make_project, stop_under_load
from processes import running

ROUNDS = 3
"""``faults/stopping.py`` does as many as it is asked."""


async def test_no_request_is_lost_when_a_server_with_workers_stops_under_load(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for _ in range(ROUNDS):
        with running(project, "--workers", str(WORKERS)) as server:
            outcomes = await stop_under_load(server)
        assert set(outcomes) <= NOT_LOST, outcomes
        assert outcomes[WHOLE] >= WARM
