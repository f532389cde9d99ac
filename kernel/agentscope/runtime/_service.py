"""A project that is served: the runtime of the moment, and how the next one takes its place."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import Context
from types import TracebackType

from agentscope.errors import ProjectError, RuntimeNotReadyError, UserError
from agentscope.platform import Platform, PlatformState
from agentscope.runtime._adapters import PLATFORMS, find_adapter
from agentscope.runtime._instance import ServiceInstance
from agentscope.runtime._process_settings import ProcessSettings
from agentscope.runtime._resources import Resources, not_closed
from agentscope.runtime._runtime import Runtime
from agentscope.runtime._versions import NewVersions, close_unused

_log = logging.getLogger("agentscope.runtime")


class Service:
    """Starts a runtime, and lets another of the same project take its place.

    A runtime that is started already is its starter's: it is served, and neither reloaded nor stopped. A new version
    that has not started after ``patience`` seconds is given up when another reload is asked for. ``platform``
    False leaves the platform that the settings name alone. ``checks`` are called with each runtime that has started;
    what they raise keeps it from serving. ``on_retired`` is called when an old version is shut down.
    """

    def __init__(self, runtime: Runtime, *, platform: bool = True, patience: float = 10.0) -> None:
        self.runtime = runtime
        """The one that takes new invocations."""
        self.reload_error: str | None = None
        """Why the last reload left the old version serving; None when it did not, or there was none."""
        self.checks: list[Callable[[Runtime], None]] = []
        self.on_retired: Callable[[], object] = lambda: None
        self.started = asyncio.Event()
        """That it serves, and can be reloaded."""
        self.instance = ServiceInstance(self)
        """What the platform sees."""
        self._with_platform = platform
        self._process_settings = ProcessSettings(runtime.settings)
        self._versions = NewVersions(patience)
        self._platform: Platform | None = None
        self._resources = Resources()
        self._owns = False
        self._is_entered = False
        self._asked: asyncio.Task[None] | None = None
        self._reloading: set[asyncio.Task[None]] = set()
        self._retiring: dict[Runtime, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "Service":
        """Start, once. Raises ``UserError`` for mistakes in the project; what was opened is closed again then."""
        if self._is_entered:
            raise RuntimeNotReadyError(
                "a service is started once: leave that to the application that serves it, or make a new one"
            )
        self._is_entered = True
        try:
            await self._open_platform()
            if not self.runtime.is_initialized:
                self._owns = True
                await self.runtime.initialize()
            self._check(self.runtime)
        except BaseException:
            await self.aclose()
            raise
        self.started.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more invocations, and no new version either."""
        return self._versions.is_stopped()

    @property
    def running(self) -> int:
        """How many invocations run, those on old versions included."""
        return sum(runtime.running for runtime in (self.runtime, *self._retiring))

    @property
    def platform_state(self) -> PlatformState | None:
        """Whether the platform answers; None without one."""
        return None if self._platform is None else self._platform.state

    async def reload(self) -> None:
        """Read the project again, start a new runtime of it, and let it take the place of the old one.

        New invocations run on the new one from then on, and those that wait; running ones finish on the old one, which
        is shut down when the last of them ends. State of sessions that was never saved stays behind. Raises
        ``UserError`` when the new version does not start, and whatever else kept it from that: the old one serves on.
        Raises ``RuntimeNotReadyError`` where there is nothing to reload.
        """
        async with self._versions.turn():
            # Whoever asks from now on may mean what was written since.
            self._asked = None
            if not self._owns or self._versions.is_stopped() or not self.runtime.is_initialized:
                raise RuntimeNotReadyError(f"a runtime that is {self._why_not()} can't be reloaded")
            try:
                successor = await self._versions.start(self._start_another)
            except Exception as error:
                self.reload_error = _said_in_public(error)
                raise
            if self._versions.is_stopped():
                await close_unused(successor)
                raise RuntimeNotReadyError("the service stops: it can't be reloaded")
            self.reload_error = None
            self._replace(successor)

    def reload_soon(self) -> None:
        """Begin to reload, and log how it ends; nothing more when a reload is about to begin anyway."""
        self._versions.give_up_late()
        if self._asked is None:
            # In the context of nobody: it would keep that one's state.
            self._asked = asyncio.get_running_loop().create_task(self.reload_and_tell(), context=Context())
            self._reloading.add(self._asked)
            self._asked.add_done_callback(self._reloading.discard)

    async def reload_and_tell(self) -> None:
        """``reload`` once the service has started, and log how it ends, whatever that is."""
        try:
            # What changes during the first start may have been read before.
            await self.started.wait()
            await self.reload()
        except UserError as error:
            _log.error("not reloaded, the old version serves on: %s", error)
        except RuntimeNotReadyError as error:
            _log.warning("not reloaded: %s", error)
        except Exception:
            # A boundary: nobody else would be told.
            _log.exception("not reloaded, the old version serves on")

    async def drain(self, timeout: float) -> None:
        """Take no new invocation, wait up to ``timeout`` seconds for those that run, and cancel the rest."""
        self._stop_reloading()
        if self._owns:
            runtimes = [self.runtime, *self._retiring]
            await asyncio.gather(*(runtime.drain(timeout) for runtime in runtimes))

    def hurry(self) -> None:
        """Let closing take no longer than it must."""
        for runtime in (self.runtime, *self._retiring):
            runtime.hurry()
        self._resources.hurry()

    async def aclose(self) -> None:
        """Shut down. Raises an ``ExceptionGroup`` when something did not close; the rest is closed all the same."""
        self._stop_reloading()
        failures: list[Exception] = []

        async def close(closer: Callable[[], Awaitable[object]]) -> None:
            try:
                await closer()
            except ExceptionGroup as group:
                failures.extend(group.exceptions)

        # A stack, so that what is cancelled in the middle of one still closes the others.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(close, self._resources.aclose)
            stack.push_async_callback(self._end_retiring)
            if self._owns:
                for runtime in (self.runtime, *self._retiring):
                    stack.push_async_callback(close, runtime.shutdown)
            stack.push_async_callback(self._until_not_reloading)
        if failures:
            raise not_closed(failures)

    def _why_not(self) -> str:
        return self.runtime.state if self._owns else "somebody else's"

    def _check(self, runtime: Runtime) -> None:
        for check in self.checks:
            check(runtime)

    async def _open_platform(self) -> None:
        settings = self.runtime.settings.platform
        if settings.endpoint is not None and self._with_platform:
            adapter = find_adapter(PLATFORMS, settings.provider, "platform.provider", settings, self)
            # Counted from now on.
            self.runtime.activity()
            self._platform = await self._resources.enter("platform", adapter(settings, self.instance))

    async def _start_another(self) -> Runtime:
        # Reading files blocks, and so does importing: others are served meanwhile.
        successor = await asyncio.to_thread(self.runtime.successor, self._process_settings.keep)
        await successor.initialize()
        try:
            self._check(successor)
        except BaseException:
            await close_unused(successor)
            raise
        return successor

    def _replace(self, successor: Runtime) -> None:
        old, self.runtime = self.runtime, successor
        successor.take_over()
        if ignored := self._process_settings.ignored:
            _log.warning("changed, and used only after a restart: %s", ", ".join(ignored))
        running = old.running
        _log.info("reloaded%s", f"; {running} running on the old version" if running else "")
        self._retiring[old] = asyncio.get_running_loop().create_task(self._retire(old), context=Context())

    async def _retire(self, old: Runtime) -> None:
        try:
            await old.retire()
        except Exception:
            # A boundary: nobody else would be told.
            _log.exception("the old version is shut down, but not everything closed")
        finally:
            self._retiring.pop(old, None)
            del old
            self.on_retired()

    async def _end_retiring(self) -> None:
        retiring = list(self._retiring.values())
        for task in retiring:
            task.cancel()
        if retiring:
            await asyncio.wait(retiring)

    def _stop_reloading(self) -> None:
        for task in self._reloading:
            task.cancel()
        self._versions.stop()

    async def _until_not_reloading(self) -> None:
        if await self._versions.ended() and self._reloading:
            await asyncio.wait(self._reloading)


def _said_in_public(error: Exception) -> str:
    """What probes and platforms are told: the log has the rest. What an app's error says may hold a secret."""
    if isinstance(error, ProjectError):
        return error.brief
    return str(error) if isinstance(error, UserError) else type(error).__name__
