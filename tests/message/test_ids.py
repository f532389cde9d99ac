"""Ids are unique, over threads and forks as well."""

import os
from concurrent.futures import ThreadPoolExecutor

from agentscope.message import new_id


def test_no_two_ids_are_the_same_whichever_thread_asks() -> None:
    def some(count: int) -> list[str]:
        return [new_id() for _ in range(count)]

    with ThreadPoolExecutor(8) as threads:
        made = [new for ids in threads.map(some, [2000] * 8) for new in ids]
    assert len(set(made)) == 16_000
    assert {len(new) for new in made} == {24}


def test_a_forked_process_makes_others() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 24).decode() not in {new_id() for _ in range(1000)}
    os.close(reading)
    os.close(writing)
