"""What a runtime has in common with those that take its place: who may run, and what both use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentscope.errors import RuntimeNotReadyError
from agentscope.runtime._admission import Admission
from agentscope.session import Turn
from agentscope.telemetry import Levels

if TYPE_CHECKING:
    from agentscope.runtime._activity import Activity
    from agentscope.runtime._runtime import Runtime
    from agentscope.runtime.settings import Settings

_T = TypeVar("_T")


class Heirloom(Generic[_T]):
    """Something open that a runtime leaves to the next one; the last who has it closes it.

    ``key`` is what it was opened by: who would open it by something else needs one of its own.
    """

    def __init__(self, key: object, value: _T, close: Callable[[], Awaitable[object]]) -> None:
        self.key = key
        self.value = value
        self._close = close
        self._users = 1

    @classmethod
    async def open(cls, key: object, manager: AbstractAsyncContextManager[_T]) -> Heirloom[_T]:
        """Enter a context manager, which is left when the last user releases it."""
        value = await manager.__aenter__()
        return cls(key, value, lambda: manager.__aexit__(None, None, None))

    def share(self) -> Heirloom[_T]:
        """One more has it now."""
        self._users += 1
        return self

    async def release(self) -> None:
        """One has it no more."""
        self._users -= 1
        if not self._users:
            await self._close()


class Succession:
    """Runtimes that follow each other, of which one takes new invocations while others finish theirs."""

    def __init__(self, settings: Settings) -> None:
        self.admission = Admission(settings)
        self.activity: Activity | None = None
        """Counts for a platform; None where nobody asks for them."""
        self.current: Runtime | None = None
        self._live: list[Runtime] = []

    def begin(self, runtime: Runtime) -> None:
        """From now on this one takes new invocations."""
        if runtime not in self._live:
            self._live.append(runtime)
        self.current = runtime
        self.admission.follow(runtime.settings)

    async def enter(
        self, asked: Runtime, session_id: str, identity: Mapping[str, Any] | None, *, nested: bool
    ) -> tuple[Runtime, str | None, Turn]:
        """Wait for the session and a slot: which runtime takes an invocation, whose it is, and its turn.

        ``asked`` is the runtime that the invocation was asked of, which another may follow before it may run. One
        that is ``nested`` stays where its parent runs. ``begin`` of a runtime says what this raises.
        """
        try:
            if self.activity is not None:
                self.activity.asked()
            self._taker(asked, nested=nested)
            owner = asked.ownership.owner(identity)
            turn = await self.admission.enter(session_id, owner, nested=nested)
            try:
                taker = self._taker(asked, nested=nested)
                if owner is not None:
                    # Nothing of this one runs yet that would keep its store open.
                    with taker.held():
                        await taker.ownership.require_to_begin(session_id, owner)
                    taker = self._taker(asked, nested=nested)
                if taker is not asked:
                    _require_same(owner, taker.ownership.owner(identity))
            except BaseException:
                self.admission.leave(turn, nested=nested)
                raise
        except Exception as error:
            if self.activity is not None:
                self.activity.refused(error)
            raise
        return taker, owner, turn

    def forget(self, session_id: str) -> None:
        """Let go of the state of a session, whichever runtime has it: it was deleted."""
        for runtime in self._live:
            runtime.scopes.drop(session_id)

    def end(self, runtime: Runtime) -> None:
        """This one is over."""
        if runtime in self._live:
            self._live.remove(runtime)

    def _taker(self, asked: Runtime, *, nested: bool) -> Runtime:
        # What runs is let finish, and what it asks for within itself is part of it.
        if nested and asked.state == "draining":
            return asked
        taker = asked if nested else self.current or asked
        if taker.state != "running":
            raise RuntimeNotReadyError(f"the runtime is {taker.state}: it takes invocations while it is running")
        return taker

    def levels(self) -> Levels:
        """What there is in all of them now."""
        return Levels(
            sum(len(runtime.scopes) for runtime in self._live),
            sum(runtime.running for runtime in self._live),
            self.admission.waiting,
        )


def _require_same(owner: str | None, now: str | None) -> None:
    if now != owner:
        raise RuntimeNotReadyError("whose sessions are whose was changed by a reload just now: try again")
