"""What can be waited for has names of its own, which fit into a notification."""

import pytest

from agentscope_adapters.storage._topics import STOPS, answer_topic, lease_topic, lines_topic


@pytest.mark.parametrize("of", ["a", "", "session a", "🗼" * 256, "x" * 100_000, "\ud83d" * 1_000])
def test_topics_of_different_kinds_and_ids_are_different(of: str) -> None:
    topics = [STOPS, *(make(one) for make in (lease_topic, lines_topic, answer_topic) for one in (of, f"{of}.", "s"))]

    assert len({topic.name for topic in topics}) == len(topics)
    assert max(len(topic.name.encode(errors="surrogatepass")) for topic in topics) < 2_000


def test_pauses_grow_to_the_longest() -> None:
    pauses = lease_topic("s").untold

    assert [pauses.pause(attempt) for attempt in (0, 1, 2, 10, 10_000)] == [0.005, 0.01, 0.02, 0.1, 0.1]


def test_what_all_processes_wait_for_all_the_time_is_looked_for_calmly() -> None:
    assert 0.1 <= STOPS.untold.pause(0) == STOPS.untold.pause(9) <= 0.25
    assert STOPS.told.pause(0) >= 0.5
