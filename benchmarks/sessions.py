"""Sessions without HTTP: what turn 1,000 costs against turn 10, and what a message costs in a cold load."""

import asyncio
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Final

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg, ToolResultBlock
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.testing import tool_call
from benchmarks.processes import Workplace
from benchmarks.sessions_stores import Counted, Store, Written, counting, logging_to, session_settings, stores
from benchmarks.table import Row

_OLD_TURN: Final = 1000
_YOUNG_TURN: Final = 10
_OLD_SESSIONS: Final = 5
_TIME_WINDOWS: Final = 2  # for each old session
_WINDOW: Final = 10  # turns
_TURN_LIMIT: Final = 1.2

_LENGTHS: Final = (1_000, 4_000, 16_000)
_COLD_ROUNDS: Final = 9
_COLD_LIMIT: Final = 15.0  # µs a message
_LINEAR_LIMIT: Final = 1.2

_WORDS: Final = "a line or two of an answer, or of a question, or of what a tool has found " * 2


class Remembers(AgentApp):
    """Loads a session's memory, adds as many messages as it is told to, and saves it.

    ``load_seconds`` is how long its last load took.
    """

    load_seconds = 0.0

    def __init__(self) -> None:
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> None:
        began = perf_counter()
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        type(self).load_seconds = perf_counter() - began
        new = int(msg.get_text_content() or 0)
        if new:
            await self.memory.add(messages(new))
            await runtime.session.save_session_state(ctx.session_id, memory=self.memory)


def messages(number: int) -> list[Msg]:
    """What an agent remembers of turns with one call of a tool: four messages a turn."""
    made: list[Msg] = []
    while len(made) < number:
        call = tool_call("look_up", number=len(made))
        found: ToolResultBlock = {"type": "tool_result", "id": call["id"], "name": "look_up", "output": _WORDS}
        made += (
            Msg("user", _WORDS, "user"),
            Msg("agent", [{"type": "text", "text": "Let me see."}, call], "assistant"),
            Msg("system", [found], "system"),
            Msg("agent", _WORDS, "assistant"),
        )
    return made[:number]


async def turn(rt: Runtime, session_id: str, new: int = 4) -> float:
    """One invocation of ``Remembers``; returns how many seconds it took."""
    began = perf_counter()
    await anext(rt.invoke(str(new), session_id=session_id), None)
    return perf_counter() - began


async def settle(rt: Runtime) -> None:
    """Let go what the last invocation left to a moment later: giving back its lease."""
    await asyncio.sleep(0)
    await rt.container.session_repository().ping()


@dataclass
class _Windows:
    """One value for each window: of seconds its median, of the others their mean."""

    seconds: list[float] = field(default_factory=list[float])
    written: list[float] = field(default_factory=list[float])
    statements: list[float] = field(default_factory=list[float])


def measure_turns(workplace: Workplace) -> Iterator[Row | str]:
    """A turn that adds four messages, in sessions that are in memory, at turn 1,000 and at turn 10."""
    with stores(workplace.folder / "turns") as both:
        for store in both:
            old, young = asyncio.run(_measure_turns(store))
            what = f"turns: {store.name}, turn {_OLD_TURN:,}/{_YOUNG_TURN}"
            yield Row(f"{what}, time", "s", old.seconds, young.seconds, _TURN_LIMIT)
            yield Row(f"{what}, written", "B", old.written, young.written, _TURN_LIMIT)
            yield Row(f"{what}, statements", "", old.statements, young.statements, _TURN_LIMIT)


async def _measure_turns(store: Store) -> tuple[_Windows, _Windows]:
    old, young = _Windows(), _Windows()
    url = store.new_url("turns")
    async with Runtime(session_settings(url), app=Remembers) as rt:
        elders = [f"old-{number}" for number in range(_OLD_SESSIONS)]
        # The windows of time stand around turn 1,000.
        await asyncio.gather(*(_grow(rt, elder, _OLD_TURN - _TIME_WINDOWS * _WINDOW // 2) for elder in elders))
        for elder in elders:
            for number in range(_TIME_WINDOWS):
                pair = (elder, await _newcomer(rt, f"young-{number}-{elder}"))
                took: tuple[list[float], list[float]] = ([], [])
                for _ in range(_WINDOW):
                    for session_id, seconds in zip(pair, took, strict=True):
                        seconds.append(await turn(rt, session_id))
                        await settle(rt)
                for windows, seconds in zip((old, young), took, strict=True):
                    windows.seconds.append(median(seconds))
        with counting() as counted:
            for elder in elders:
                newcomer = await _newcomer(rt, f"young-{elder}")
                async with logging_to(url) as written:
                    for session_id, windows in ((elder, old), (newcomer, young)):
                        await _watch(rt, session_id, windows, counted, written)
    return old, young


async def _newcomer(rt: Runtime, session_id: str) -> str:
    """A session whose next window stands around turn 10."""
    await _grow(rt, session_id, _YOUNG_TURN - _WINDOW // 2)
    await settle(rt)
    return session_id


async def _watch(rt: Runtime, session_id: str, windows: _Windows, counted: Counted, written: Written) -> None:
    counted.statements.clear()
    before = await written()
    for _ in range(_WINDOW):
        await turn(rt, session_id)
        await settle(rt)
    windows.statements.append(len(counted.statements) / _WINDOW)
    windows.written.append((await written() - before) / _WINDOW)


async def _grow(rt: Runtime, session_id: str, turns: int) -> None:
    for _ in range(turns):
        await turn(rt, session_id)


def measure_cold_load(workplace: Workplace) -> Iterator[Row | str]:
    """Loading sessions that are not in memory."""
    with stores(workplace.folder / "cold-load") as both:
        for store in both:
            took = asyncio.run(_measure_cold_load(store))
            what = f"cold-load: {store.name}"
            limits = [_COLD_LIMIT] * _COLD_ROUNDS
            for length in _LENGTHS:
                yield Row(f"{what}, 1 of {length:,}, of its limit", "µs", took[length], limits, 1.0)
            least, most = _LENGTHS[0], _LENGTHS[-1]
            yield Row(f"{what}, {most:,}/{least:,}", "µs", took[most], took[least], _LINEAR_LIMIT)


async def _measure_cold_load(store: Store) -> Mapping[int, Sequence[float]]:
    took: dict[int, list[float]] = {length: [] for length in _LENGTHS}
    # The next session that is used drives the last one out of memory.
    async with Runtime(session_settings(store.new_url("cold-load"), max_resident=1), app=Remembers) as rt:
        for length in _LENGTHS:
            await turn(rt, f"long-{length}", length)
        for _ in range(_COLD_ROUNDS):
            for length in _LENGTHS:
                await turn(rt, "another", 0)
                await settle(rt)
                # What earlier loads left must not be collected on this one's time.
                gc.collect()
                await turn(rt, f"long-{length}", 0)
                took[length].append(Remembers.load_seconds / length * 1e6)
    return took
