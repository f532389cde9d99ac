"""While a runtime serves, what new sessions start from can be read from anywhere and changed from nowhere."""

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import orjson
import pytest

from agentscope.errors import OutsideInvocationError
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from module.workshop import Notes, Workshop, app_of, inside, notes_of, staying
from serving import settings


class Everything(StateModule):
    """One of each kind of value."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 1
        self.list: list[Any] = [3, 1, [2], {"deep": [1]}]
        self.dict: dict[str, Any] = {"a": 1, "b": [1], "c": {"d": {1}}}
        self.set = {1, 2}
        self.message = Msg("user", "hi", "user")
        for name in ("number", "list", "dict", "set", "message"):
            self.register_state(name)


class App(Workshop):
    """An app with one of each."""

    async def on_startup(self) -> None:
        """Make the modules."""
        await super().on_startup()
        self.everything = Everything()


def everything(rt: Runtime) -> Everything:
    return app_of(rt, App).everything


def refused(write: Callable[[], object]) -> str:
    """How a write is refused."""
    with pytest.raises(OutsideInvocationError) as caught:
        write()
    return str(caught.value)


async def test_a_write_is_refused_and_the_error_says_what_to_write_instead() -> None:
    async with Runtime(settings(), app=App) as rt:
        notes = notes_of(rt)
        text = refused(lambda: setattr(notes, "count", 5))
        assert text.startswith("Notes.count was changed outside any session while the runtime serves")
        for way_out in ("`__init__`", "`on_startup`", "`ctx.spawn(coro)`", "`asyncio.to_thread(…)`"):
            assert way_out in text
        with pytest.raises(OutsideInvocationError):
            notes.load_state_dict({"count": 5, "items": []})
        assert notes.count == 1
        assert await inside(rt, "a", lambda ctx: (notes.count, notes.items)) == (1, [["from the start"]])


async def test_a_worker_that_the_app_starts_with_itself_is_refused() -> None:
    go = asyncio.Event()

    class WithWorker(Workshop):
        async def on_startup(self) -> None:
            await super().on_startup()
            self.worker = asyncio.create_task(self.work())

        async def work(self) -> str:
            await go.wait()
            assert self.notes.count == 1
            return refused(lambda: self.notes.items.append("x")) + refused(lambda: setattr(self.notes, "count", 2))

    async with Runtime(settings(), app=WithWorker) as rt:
        go.set()
        text = await app_of(rt, WithWorker).worker
        assert "ctx.spawn(coro)" in text
        assert await inside(rt, "a", lambda ctx: notes_of(rt).state_dict()) == {
            "count": 1,
            "items": [["from the start"]],
        }


async def test_a_worker_may_ask_the_app_in_a_session() -> None:
    go = asyncio.Event()

    class Counting(AgentApp):
        async def on_startup(self) -> None:
            self.notes = Notes()
            self.worker = asyncio.create_task(self.work())

        async def work(self) -> list[Any]:
            await go.wait()
            return [[msg.content async for msg in runtime.invoke("go", session_id="the worker's")] for _ in range(2)]

        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            self.notes.count += 1
            return Msg("assistant", str(self.notes.count), "assistant")

    async with Runtime(settings(), app=Counting) as rt:
        go.set()
        assert await app_of(rt, Counting).worker == [["1"], ["2"]]


async def test_a_plain_executor_is_refused_where_to_thread_works() -> None:
    async with Runtime(settings(), app=App) as rt:
        notes = notes_of(rt)

        def add() -> None:
            notes.count += 1
            notes.items.append("x")

        async def work(ctx: SessionContext) -> int:
            loop = asyncio.get_running_loop()
            with pytest.raises(OutsideInvocationError, match="to_thread"):
                await loop.run_in_executor(None, add)
            await asyncio.to_thread(add)
            await loop.run_in_executor(None, copy_context().run, add)
            return notes.count

        assert await inside(rt, "a", work) == 3
        assert await inside(rt, "b", lambda ctx: (notes.count, notes.items)) == (1, [["from the start"]])


@pytest.mark.parametrize("kind", ["thread", "pool"])
async def test_a_thread_of_the_apps_own_is_refused(kind: str) -> None:
    async with Runtime(settings(), app=App) as rt:
        notes = notes_of(rt)
        answers: list[str] = []

        def write() -> None:
            answers.append(refused(lambda: setattr(notes, "count", 2)))

        def work() -> None:
            if kind == "pool":
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(write).result()
            else:
                thread = threading.Thread(target=write)
                thread.start()
                thread.join()

        await inside(rt, "a", lambda ctx: asyncio.to_thread(work))
        assert "Notes.count" in answers[0]
        assert await inside(rt, "a", lambda ctx: notes.count) == 1


IN_PLACE: dict[str, Callable[[Everything], object]] = {
    "list.append": lambda m: m.list.append(1),
    "list.extend": lambda m: m.list.extend([1]),
    "list.insert": lambda m: m.list.insert(0, 1),
    "list.pop": lambda m: m.list.pop(),
    "list.remove": lambda m: m.list.remove(3),
    "list.clear": lambda m: m.list.clear(),
    "list.sort": lambda m: m.list.sort(),
    "list.reverse": lambda m: m.list.reverse(),
    "list[0]": lambda m: m.list.__setitem__(0, 1),
    "list[:]": lambda m: m.list.__setitem__(slice(None), []),
    "del list[0]": lambda m: m.list.__delitem__(0),
    "list +=": lambda m: m.list.__iadd__([1]),
    "list *=": lambda m: m.list.__imul__(2),
    "list in list": lambda m: m.list[2].append(1),
    "list in dict in list": lambda m: m.list[3]["deep"].append(1),
    "dict[key]": lambda m: m.dict.__setitem__("a", 2),
    "del dict[key]": lambda m: m.dict.__delitem__("a"),
    "dict.pop": lambda m: m.dict.pop("a"),
    "dict.popitem": lambda m: m.dict.popitem(),
    "dict.clear": lambda m: m.dict.clear(),
    "dict.update": lambda m: m.dict.update(a=2),
    "dict.setdefault": lambda m: m.dict.setdefault("new", 1),
    "dict |=": lambda m: m.dict.__ior__({"a": 2}),
    "list in dict": lambda m: m.dict["b"].append(1),
    "set in dict in dict": lambda m: m.dict["c"]["d"].add(2),
    "set.add": lambda m: m.set.add(3),
    "set.discard": lambda m: m.set.discard(1),
    "set.remove": lambda m: m.set.remove(1),
    "set.pop": lambda m: m.set.pop(),
    "set.clear": lambda m: m.set.clear(),
    "set.update": lambda m: m.set.update({3}),
    "set |=": lambda m: m.set.__ior__({3}),
    "set &=": lambda m: m.set.__iand__({3}),
    "set -=": lambda m: m.set.__isub__({1}),
    "set ^=": lambda m: m.set.__ixor__({1}),
    "set.difference_update": lambda m: m.set.difference_update({1}),
    "set.intersection_update": lambda m: m.set.intersection_update({1}),
    "set.symmetric_difference_update": lambda m: m.set.symmetric_difference_update({1}),
}


@pytest.mark.parametrize("write", IN_PLACE.values(), ids=IN_PLACE)
async def test_a_change_in_place_is_refused_and_changes_nothing(write: Callable[[Everything], object]) -> None:
    async with Runtime(settings(), app=App) as rt:
        there = everything(rt)
        refused(lambda: write(there))
        fresh = Everything()
        assert await inside(rt, "a", lambda ctx: (there.list, there.dict, there.set)) == (
            fresh.list,
            fresh.dict,
            fresh.set,
        )


async def test_what_else_is_read_outside_is_a_copy() -> None:
    async with Runtime(settings(), app=App) as rt:
        everything(rt).message.content = "changed"
        assert await inside(rt, "a", lambda ctx: everything(rt).message.content) == "hi"


READINGS: dict[str, Callable[[Everything], object]] = {
    "equal": lambda m: (m.list == Everything().list, m.dict == Everything().dict, m.set == {1, 2}),
    "of its type": lambda m: [isinstance(getattr(m, kind.__name__), kind) for kind in (list, dict, set)],
    "repr": lambda m: (repr(m.list), repr(m.dict)),
    "loop": lambda m: ([*m.list], {**m.dict}, sorted(m.set)),
    "copy method": lambda m: (m.list.copy(), m.dict.copy(), m.set.copy()),
    "operators": lambda m: (m.list + m.list, m.dict | {"z": 1}, m.set | {9}, m.list[1:], m.list * 2),
    "copy": lambda m: (copy.copy(m.list), copy.copy(m.dict), copy.copy(m.set)),
    "deepcopy": lambda m: (copy.deepcopy(m.list), copy.deepcopy(m.dict), copy.deepcopy(m.set)),
    "pickle": lambda m: (
        pickle.loads(pickle.dumps(m.list)),
        pickle.loads(pickle.dumps(m.dict)),
        pickle.loads(pickle.dumps(m.set)),
    ),
    "json": lambda m: (json.dumps(m.list), orjson.dumps(m.list)),
}


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
async def test_reading_works_as_ever(read: Callable[[Everything], object]) -> None:
    async with Runtime(settings(), app=App) as rt:
        assert read(everything(rt)) == read(Everything())


@pytest.mark.parametrize("make_copy", [copy.deepcopy, copy.copy], ids=["deepcopy", "copy"])
async def test_a_copy_of_what_was_read_is_the_readers_own(make_copy: Callable[[Any], Any]) -> None:
    async with Runtime(settings(), app=App) as rt:
        own = make_copy(everything(rt).list)
        own.append(1)
        assert (type(own), len(own)) == (list, 5)
        assert await inside(rt, "a", lambda ctx: len(everything(rt).list)) == 4


async def test_the_state_of_a_module_can_be_read_outside() -> None:
    async with Runtime(settings(), app=App) as rt:
        state = notes_of(rt).state_dict()
        assert state == {"count": 1, "items": [["from the start"]]}
        state["items"][0].append("the reader's own")
        assert notes_of(rt).items == [["from the start"]]
        await rt.session.save_session_state("made by hand", notes=notes_of(rt))
        stored = await rt.session.load_session_state("made by hand")
        assert dict(stored or {}) == {"notes": {"count": 1, "items": [["from the start"]]}}


async def test_what_is_read_outside_is_what_sessions_start_from_and_nothing_of_theirs() -> None:
    async with Runtime(settings(), app=App) as rt, staying(rt, "a") as session:
        session.run(lambda: notes_of(rt).items.append("a secret"))
        assert notes_of(rt).items == [["from the start"]]


async def test_before_the_start_and_after_the_stop_everything_may_be_changed() -> None:
    class Closing(App):
        async def on_startup(self) -> None:
            await super().on_startup()
            self.notes.items.append("before")
            await asyncio.to_thread(lambda: self.notes.items.append("in a thread"))

        async def on_shutdown(self) -> None:
            self.notes.items.append("while it stops")
            self.notes.count += 1

    rt = Runtime(settings(), app=Closing)
    async with rt:
        seen = await inside(rt, "a", lambda ctx: list(notes_of(rt).items))
        assert seen == [["from the start"], "before", "in a thread"]
        refused(lambda: notes_of(rt).items.append("while it serves"))
    notes_of(rt).items.append("after")
    notes_of(rt).count += 1
    assert notes_of(rt).items[-2:] == ["while it stops", "after"]
    assert notes_of(rt).count == 3


async def test_a_start_that_failed_leaves_no_guard() -> None:
    class Failing(Workshop):
        async def on_startup(self) -> None:
            made.append(Notes())
            raise ValueError("no")

    made: list[Notes] = []
    with pytest.raises(Exception, match="no"):
        await Runtime(settings(), app=Failing).initialize()
    made[0].count = 7
    made[0].items.append("x")
    assert made[0].state_dict() == {"count": 7, "items": ["x"]}


async def test_a_runtime_that_serves_does_not_guard_the_modules_of_one_that_does_not() -> None:
    stopped = Runtime(settings(), app=App)
    async with stopped:
        pass
    elsewhere = Notes()
    async with Runtime(settings(), app=App) as rt:
        notes_of(stopped).count = 7
        notes_of(stopped).items.append("x")
        elsewhere.items.append("x")
        refused(lambda: setattr(notes_of(rt), "count", 7))
    assert (notes_of(stopped).count, elsewhere.items) == (7, ["x"])


async def test_a_module_from_outside_is_guarded_once_a_session_has_looked_at_it() -> None:
    notes = Notes()
    async with Runtime(settings(), app=App) as rt:
        await inside(rt, "a", lambda ctx: notes.count)
        refused(lambda: setattr(notes, "count", 7))
        assert await inside(rt, "b", lambda ctx: notes.count) == 0
    notes.count = 7


async def test_a_module_of_two_runtimes_is_guarded_until_both_have_stopped() -> None:
    notes = Notes()
    async with Runtime(settings(), app=App) as one:
        async with Runtime(settings(), app=App) as other:
            for rt in (one, other):
                await inside(rt, "a", lambda ctx: notes.items.append("x"))
        refused(lambda: notes.items.append("a secret"))
        assert await inside(one, "b", lambda ctx: notes.items) == []
    notes.items.append("x")


async def test_attributes_that_are_not_registered_are_ordinary() -> None:
    async with Runtime(settings(), app=App) as rt:
        notes = notes_of(rt)
        notes.shared = "from outside"
        assert await inside(rt, "a", lambda ctx: notes.shared) == "from outside"
        await inside(rt, "a", lambda ctx: setattr(notes, "shared", "from a"))
        assert await inside(rt, "b", lambda ctx: notes.shared) == "from a"
