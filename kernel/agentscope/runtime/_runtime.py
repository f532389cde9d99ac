"""``Runtime``: a project, its container and its running invocations, as one ordinary object."""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from agentscope.errors import (
    RuntimeNotReadyError,
    SessionBusyError,
    UnknownNameError,
)
from agentscope.message import Msg, new_id
from agentscope.model import ChatModel
from agentscope.module import SessionScopes, current_invocation, current_runtime
from agentscope.runtime._activity import Activity
from agentscope.runtime._app import AgentApp
from agentscope.runtime._container import check_models, check_port, replace
from agentscope.runtime._current import delist, enlist, find_invocation
from agentscope.runtime._dependencies import DependencyState, check
from agentscope.runtime._invocation import Invocation
from agentscope.runtime._lifecycle import Lifecycle
from agentscope.runtime._models import ModelSlots
from agentscope.runtime._ownership import Ownership
from agentscope.runtime._pump import Bell
from agentscope.runtime._running import RunningInvocations
from agentscope.runtime._stream import MsgStream
from agentscope.runtime._succession import Succession
from agentscope.runtime._tools import toolkit_handle
from agentscope.runtime._watch import Watch, watch
from agentscope.runtime.settings import LoadedSettings, Settings, load_settings
from agentscope.session import (
    Caller,
    Leases,
    SessionStore,
    StopRequest,
    StopRequests,
    TaskUses,
    check_session_id,
)
from agentscope.telemetry import Exposition, Telemetry, current_observer, outgoing_headers
from agentscope.tool import ToolServer

_T = TypeVar("_T")


class Runtime:
    """A kernel. Several may live in one process; none sees another.

    ``project`` is the folder of ``app.py``, which ``settings.app`` names; with ``app`` the class is given instead.
    Use it as an async context manager, or call ``initialize`` and ``shutdown``. ``load`` reads the project's settings
    again, for a successor; None means that it can have none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        project: Path | None = None,
        app: type[AgentApp] | None = None,
        load: Callable[[], LoadedSettings] | None = None,
        predecessor: "Runtime | None" = None,
    ) -> None:
        self.settings = settings
        self.project = (project or Path.cwd()).resolve()
        self._load = load
        self._succession: Succession = Succession(settings) if predecessor is None else predecessor._succession
        self._takes_over = predecessor is not None
        self._lifecycle: Lifecycle = Lifecycle(
            settings,
            self.project,
            app,
            self._session_caller,
            self._stop_here,
            self._succession.levels,
            None if predecessor is None else predecessor._lifecycle,
        )
        self.container = self._lifecycle.container
        self.models = ModelSlots(self.container.models.providers, settings.models)
        self.tools = toolkit_handle(self.container.tools)
        self.scopes = SessionScopes(settings.session.max_resident)
        self.keepalives = Bell(settings.server.keepalive_interval)
        """For those who read answers: it rings when an app was silent for ``server.keepalive_interval``."""
        self.state = "new"
        self._app: AgentApp | None = None
        self._stopping = asyncio.Lock()
        self._task_uses = TaskUses()
        self._admission = self._succession.admission
        self._holders = 0
        self._unheld = asyncio.Event()
        self.ownership = Ownership(settings.session.owner_claim, self.scopes, self.container.session_repository)
        """Whose sessions are whose."""
        self._running = RunningInvocations(self._succession, self.container.stop_requests)

    @classmethod
    def from_project(
        cls,
        project: Path | str = ".",
        *,
        config: Path | None = None,
        assignments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> "Runtime":
        """The runtime of a project folder.

        ``config`` names another file than ``agentapp.yaml``, ``assignments`` are settings such as
        ``server.port=9000``, and ``environment`` stands in for that of the process.

        Raises ``UserError`` when the folder or its configuration is wrong.
        """
        loaded = load_settings(Path(project), config=config, assignments=assignments, environment=environment)
        return cls(loaded.settings, project=loaded.project, load=loaded.again)

    def successor(self, adapt: Callable[[Settings], Settings] = lambda settings: settings) -> "Runtime":
        """A new runtime of the same project, which is read again: see ``take_over``. It reads files, and blocks.

        It goes on with this one's session store and telemetry where their settings are the same, and its sessions and
        limits are counted together with this one's. ``adapt`` is given the settings that were read, and gives those
        to use. Raises ``UserError`` when the configuration is wrong, and
        ``RuntimeNotReadyError`` for a runtime that was made of settings alone.
        """
        if self._load is None:
            raise RuntimeNotReadyError("this runtime was made from settings, not from a project: it can't be reloaded")
        loaded = self._load()
        return Runtime(adapt(loaded.settings), project=loaded.project, load=loaded.again, predecessor=self)

    @property
    def session(self) -> SessionStore:
        """What loads and saves the state of sessions."""
        return self.container.session()

    @property
    def is_initialized(self) -> bool:
        """Whether the runtime is started and not yet shut down."""
        return self.state in {"running", "draining"}

    @property
    def app(self) -> AgentApp:
        """The app object. Raises ``RuntimeNotReadyError`` before the start."""
        if self._app is None:
            raise RuntimeNotReadyError("the runtime has no app before `await runtime.initialize()`")
        return self._app

    @property
    def running(self) -> int:
        """How many invocations run in this process."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many invocations wait for their session or for a slot."""
        return self._admission.waiting

    async def initialize(self) -> None:
        """Load the app, check the graph, open everything in order, and run ``on_startup``.

        What was opened is closed again when a later step fails. Raises ``UserError`` for mistakes in the project.
        """
        if self.state != "new":
            raise RuntimeNotReadyError(f"initialize() on a runtime that is {self.state}: make a new one")
        self.state = "starting"
        try:
            with self._as_current():
                self._app = await self._lifecycle.start()
        except BaseException:
            self.state = "stopped"
            raise
        self.state = "running"
        self.scopes.serve()
        if not self._takes_over:
            self.take_over()

    def take_over(self) -> None:
        """Take every new invocation from now on, also those that wait to run at the predecessor.

        A successor does so once it is initialized and this is called; any other runtime does by itself. The
        predecessor goes on with what runs there: call its ``retire``. Raises ``RuntimeNotReadyError`` for one that
        does not run.
        """
        if self.state != "running":
            raise RuntimeNotReadyError(f"take_over() of a runtime that is {self.state}: initialize it first")
        before = self._succession.current
        self._succession.begin(self)
        if before is not None and before is not self:
            before.state = "draining"
            delist(before)
        enlist(self)

    def activity(self) -> Activity:
        """What this runtime, its predecessors and its successors do is counted, from the first call on."""
        if self._succession.activity is None:
            self._succession.activity = Activity()
        return self._succession.activity

    def hold(self) -> None:
        """Somebody uses it beside its invocations, until ``let_go``: it does not retire meanwhile."""
        self._holders += 1

    def let_go(self) -> None:
        """See ``hold``."""
        self._holders -= 1
        if not self._holders:
            self._unheld.set()

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """``hold`` for a block."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    async def retire(self) -> None:
        """Shut down when the last invocation here has ended, and nobody holds this runtime any more.

        For one whose place another has taken. Raises what ``shutdown`` does.
        """
        while self._holders or self._running:
            await self._running.all_ended()
            self._unheld.clear()
            if self._holders:
                await self._unheld.wait()
        await self.shutdown()

    async def drain(self, timeout: float = 0.0) -> None:
        """Take no new invocation, wait up to ``timeout`` seconds for those that run, and cancel the rest."""
        if not self.is_initialized:
            return
        self.state = "draining"
        await self._running.drain(timeout)

    def hurry(self) -> None:
        """Let ``shutdown`` take no longer than it must: what closes has a second, and is then cancelled."""
        self._lifecycle.hurry()

    async def shutdown(self) -> None:
        """Cancel what still runs, run ``on_shutdown``, and close everything in reverse order.

        Raises an ``ExceptionGroup`` when something did not close; the rest is closed all the same.
        """
        invocation = find_invocation()
        if invocation is not None and invocation.runtime is self:
            raise RuntimeNotReadyError("shutdown() inside an invocation would wait for itself: call it from outside")
        if self.state == "starting":
            raise RuntimeNotReadyError("shutdown() while the runtime starts: cancel initialize() instead")
        # Whoever comes second waits until the first is through.
        async with self._stopping:
            if not self.is_initialized:
                return
            await self.drain()
            self.state = "stopped"
            self.scopes.serving = False
            try:
                with self._as_current():
                    await self._lifecycle.stop()
            finally:
                delist(self)
                self._succession.end(self)

    async def __aenter__(self) -> "Runtime":
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()

    @contextmanager
    def override(
        self, *, models: Mapping[str, ChatModel] | None = None, **replacements: object
    ) -> "Generator[Runtime, None, None]":
        """Put objects in the place of models, by slot, and of the container's other providers, by name.

        It holds for everyone who uses this runtime until the ``with`` block ends. Raises ``UnknownNameError``,
        before anything is replaced, for a slot or a provider that does not exist, and ``TypeError`` for an object that
        can't be what is asked of it.
        """
        models = {} if models is None else models
        check_models(models)
        slots = self.container.models.providers
        for slot in models:
            if slot not in slots:
                raise UnknownNameError("model slot", slot, slots)
        named = {name: provider for name, provider in self.container.providers.items() if name != "models"}
        for name in replacements:
            if name not in named:
                raise UnknownNameError("provider", name, named)
            check_port(name, replacements[name])
        with ExitStack() as stack:
            for slot, model in models.items():
                stack.enter_context(replace(slots[slot], model))
            for name, replacement in replacements.items():
                stack.enter_context(replace(named[name], replacement))
            yield self

    async def begin(
        self,
        msg: Msg,
        encode: Callable[[Msg], tuple[_T, int]],
        *,
        session_id: str,
        request_id: str,
        invocation_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> Invocation[_T]:
        """Wait for the session and for a slot, then start an invocation; whoever begins one reads its pump.

        ``identity`` holds the verified claims of who sent the message; inside an invocation None means those of that
        one. ``invocation_id`` None makes one. ``watch`` is told of the invocation, None when nobody wants to know.

        Raises ``RuntimeNotReadyError``, ``SessionBusyError``, ``OverloadedError`` or ``InvocationCancelledError`` when
        it may not start, ``ForbiddenError`` or ``SessionNotFoundError`` when the session is not for that identity.
        """
        check_session_id(session_id)
        around = find_invocation()
        nested = around is not None and around.runtime is self and not around.ended
        if nested and identity is None and around is not None:
            identity = around.identity
        runtime, owner, turn = await self._succession.enter(self, session_id, identity, nested=nested)
        try:
            invocation = Invocation(
                runtime,
                runtime.app,
                msg,
                encode,
                session_id=session_id,
                request_id=request_id,
                invocation_id=invocation_id or new_id(),
                metadata=metadata,
                identity=identity,
                owner=owner,
                timeout=runtime.settings.server.request_timeout,
                watch=watch,
            )
            runtime._running.start(invocation, turn, nested=nested)
        except BaseException:
            self._admission.leave(turn, nested=nested)
            raise
        return invocation

    def invoke(
        self,
        message: Msg | str,
        *,
        session_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> MsgStream:
        """The app's answer as an async iterator of ``Msg``s. Without a session id, a new session is used.

        ``identity`` is what the app finds at ``ctx.identity``; with ``session.owner_claim`` the session is that one's.
        """
        msg = Msg("user", message, "user") if isinstance(message, str) else message
        if not isinstance(msg, Msg):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
            raise TypeError(f"a message is a text or a Msg, not a {type(msg).__name__}")
        return MsgStream(self._begin_watched, msg, new_id() if session_id is None else session_id, metadata, identity)

    async def cancel_session(self, session_id: str, *, owner: str | None = None) -> bool:
        """Cancel the session's invocation, in whatever process it runs; its stream ends with an error.

        With an ``owner`` only if the session is that one's. Return False when no invocation of it was found within a
        second. Raises ``SessionStoreError`` when the store fails.
        """
        self._require_initialized()
        if self._running.cancel(session_id, "cancelled", owner):
            return True
        stop_requests: StopRequests = self.container.stop_requests()
        with self.held():
            return await stop_requests.cancel(session_id, owner)

    async def delete_session(self, session_id: str, *, owner: str | None = None) -> bool:
        """Delete a session, between its invocations: what is stored of it, and what this process has of it.

        With an ``owner`` only if the session is that one's. Return False when nothing was stored. Raises
        ``SessionNotFoundError`` when it is another's, ``SessionBusyError`` when it does not become free in time, and
        ``SessionStoreError`` when the store fails.
        """
        self._require_initialized()
        invocation = find_invocation()
        if invocation is not None and invocation.runtime is self and invocation.session_id == session_id:
            raise SessionBusyError(session_id, f"session {session_id!r} can't be deleted by its own invocation")
        leases: Leases = self.container.leases()
        with self.held():
            await self.ownership.require(session_id, owner)
            async with self._admission.session(session_id, owner):
                lease = await leases.take(session_id, replaces=False)
                try:
                    # Once more: it may have been made by another meanwhile.
                    await self.ownership.require(session_id, owner)
                    deleted = await self.container.session_repository().delete(lease)
                finally:
                    leases.release(lease)
                self._succession.forget(session_id)
                return deleted

    @property
    def telemetry(self) -> Telemetry:
        """Who is told what goes on; ``OFF`` when nobody is."""
        telemetry: Telemetry = self.container.telemetry()
        return telemetry

    def watch(self, name: str, headers: Mapping[str, str]) -> Watch | None:
        """What is told of an invocation that is begun in its block; None when nobody wants to know.

        ``name`` and ``headers`` are those of ``Operation``.
        """
        return watch(self.telemetry, name, headers)

    @property
    def exposition(self) -> Exposition | None:
        """The metrics, for a scrape; None without ``server.metrics``."""
        return self._lifecycle.exposition

    @property
    def servers(self) -> Mapping[str, ToolServer]:
        """The MCP servers by name."""
        return self._lifecycle.servers

    async def check_dependencies(self) -> dict[str, DependencyState]:
        """How each thing that the runtime depends on is, by name."""
        return await check(self.container.session_repository(), self.servers)

    @contextmanager
    def _as_current(self) -> Generator[None, None, None]:
        # Whoever starts or stops it may be in an invocation, of another runtime: the app's hooks are in none.
        runtime, invocation = current_runtime.set(self), current_invocation.set(None)
        observer = current_observer.set(self.telemetry)
        try:
            yield
        finally:
            current_observer.reset(observer)
            current_invocation.reset(invocation)
            current_runtime.reset(runtime)

    async def _begin_watched(self, msg: Msg, encode: Callable[[Msg], tuple[_T, int]], **about: Any) -> Invocation[_T]:
        watch = self.watch("", outgoing_headers())
        if watch is None:
            return await self.begin(msg, encode, **about)
        with watch:
            return await self.begin(msg, encode, watch=watch, **about)

    def _stop_here(self, request: StopRequest) -> bool:
        return self._running.stop(request)

    def _require_initialized(self) -> None:
        if not self.is_initialized:
            raise RuntimeNotReadyError(f"the runtime is {self.state}: it has no sessions")

    def _session_caller(self) -> Caller:
        invocation = find_invocation()
        if invocation is None or invocation.runtime is not self:
            return Caller(self._task_uses())
        return Caller(invocation.use, invocation)
