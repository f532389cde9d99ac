"""Starting and stopping what a runtime is made of, in order, on every path."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dependency_injector import providers

from agentscope.auth import Authenticator
from agentscope.errors import ToolNameError, ToolServerError, UserError
from agentscope.model import ChatModel
from agentscope.module import StateModule
from agentscope.runtime._adapters import AUTHENTICATORS, MODELS, SESSION_BACKENDS, TOOLS, find_adapter
from agentscope.runtime._app import AgentApp, check_app_class
from agentscope.runtime._auto_state import find_state_modules
from agentscope.runtime._container import KernelContainer, check_graph, check_port, overriding
from agentscope.runtime._imports import ProjectModules
from agentscope.runtime._project import explained, load_app_class
from agentscope.runtime._resources import Resources
from agentscope.runtime._sessions import open_sessions
from agentscope.runtime._succession import Heirloom
from agentscope.runtime._telemetry import TelemetryAdapters
from agentscope.runtime.settings import McpServerSettings, ModelSettings, Settings
from agentscope.session import Caller, Pruner, StopRequest
from agentscope.telemetry import Exposition, Levels, current_observer
from agentscope.tool import Toolkit, ToolServer

_log = logging.getLogger("agentscope.runtime")
_T = TypeVar("_T")


class Lifecycle:
    """The container of a runtime, and all that is opened for it.

    ``app`` is the class to serve; None means the one that ``settings.app`` names in the folder ``project``. With a
    ``predecessor`` it goes on with what that one has open and it would open alike; and as that one serves meanwhile,
    whatever blocks is done in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        project: Path,
        app: type[AgentApp] | None,
        session_caller: Callable[[], Caller],
        stop_here: Callable[[StopRequest], bool],
        levels: Callable[[], Levels],
        predecessor: "Lifecycle | None" = None,
    ) -> None:
        self.container = KernelContainer(
            settings=settings,
            session_caller=providers.Object(session_caller),
            auto_saved=providers.Object(self._auto_saved),
            stop_here=providers.Object(stop_here),
        )
        slots: dict[Any, providers.Provider[ChatModel]] = {
            slot: providers.Singleton(self._make_model, slot, model) for slot, model in settings.models.items()
        }
        self.container.models.set_providers(slots)
        self._settings = settings
        self._project = project
        self._app_class = app
        self._app: AgentApp | None = None
        self._modules = ProjectModules(project)
        self._resources = Resources()
        self._levels = levels
        self._predecessor = predecessor
        self._heirlooms: dict[str, Heirloom[Any]] = {}
        self.servers: dict[str, ToolServer] = {}
        self.exposition: Exposition | None = None

    async def start(self) -> AgentApp:
        """Load the app, check the graph, open everything, and run ``on_startup``.

        What was opened is closed again when a later step fails. Raises ``UserError`` for mistakes in the project.
        """
        try:
            self._modules.install()
            self._resources.push("the project's modules", self._forget_modules)
            app_class = await self._do(self._load_app_class)
            check_graph(self.container)
            await self._do(self._check_adapters)
            await self._open_telemetry()
            await self._open()
            return await self._start_app(app_class)
        except BaseException:
            try:
                await self._resources.aclose()
            except Exception:
                # Why it could not start is what the caller must see.
                _log.exception("closing after a failed start")
            raise
        finally:
            self._predecessor = None

    def hurry(self) -> None:
        """Give what closes less time."""
        self._resources.hurry()

    async def stop(self) -> None:
        """Run ``on_shutdown`` and close everything in reverse order. Raises an ``ExceptionGroup`` of what failed."""
        await self._resources.aclose()

    async def _do(self, work: Callable[[], _T]) -> _T:
        return work() if self._predecessor is None else await asyncio.to_thread(work)

    async def _enter(self, name: str, key: object, make: Callable[[], AbstractAsyncContextManager[_T]]) -> _T:
        """Open something that may be left to a successor, or go on with what the predecessor has opened by ``key``."""
        left = None if self._predecessor is None else self._predecessor._heirlooms.get(name)
        heirloom: Heirloom[_T]
        if left is not None and left.key == key:
            heirloom = left.share()
        else:
            heirloom = await Heirloom[_T].open(key, make())
        self._heirlooms[name] = heirloom
        self._resources.push(name, heirloom.release)
        return heirloom.value

    def _load_app_class(self) -> type[AgentApp]:
        if self._app_class is not None:
            return check_app_class(self._app_class, self._app_class.__module__)
        return load_app_class(self._modules, self._settings.app)

    def _check_adapters(self) -> None:
        """Import every adapter that will be used: one that isn't there is known before anything opens."""
        if overriding(self.container.authenticator) is None and self._settings.server.auth.is_on:
            self._auth_adapter()
        if overriding(self.container.session_repository) is None:
            settings = self._settings.session
            find_adapter(SESSION_BACKENDS, settings.backend, "session.backend", settings, self._project)
        for slot, provider in self.container.models.providers.items():
            if overriding(provider) is None:
                self._model_adapter(slot, self._settings.models[slot])
        if overriding(self.container.tools) is None:
            for name, server in self._settings.mcp_servers.items():
                self._server_adapter(name, server)

    def _model_adapter(self, slot: str, settings: ModelSettings) -> Callable[..., Any]:
        return find_adapter(MODELS, settings.provider, f"models.{slot}.provider", slot, settings)

    def _server_adapter(self, name: str, settings: McpServerSettings) -> Callable[..., Any]:
        return find_adapter(TOOLS, "mcp", f"mcp_servers.{name}", name, settings, self._project)

    def _auth_adapter(self) -> Callable[..., Any]:
        auth = self._settings.server.auth
        key = "server.auth" if auth.provider is None else "server.auth.provider"
        return find_adapter(AUTHENTICATORS, auth.provider or "bearer", key, auth, self._project)

    async def _open_telemetry(self) -> None:
        # First, so that it closes last: what is told while the rest closes gets out.
        if overriding(self.container.telemetry) is None:
            adapters = TelemetryAdapters(self._settings, self._project, self._levels)
            telemetry, self.exposition = await adapters.open(self._enter)
            provider = self.container.telemetry
            provider.set_default(providers.Object(telemetry))  # pyright: ignore[reportUnknownMemberType]
        # The app's hooks, and the tasks that they start, begin operations of their own. The caller's context gets
        # back what it had when the start is over.
        current_observer.set(self.container.telemetry())

    async def _open(self) -> None:
        if not self._settings.server.auth.is_on:
            self._set_authenticator(None)
        elif overriding(self.container.authenticator) is None:
            self._set_authenticator(await self._open_authenticator())
        repository = self.container.session_repository
        if overriding(repository) is None:
            session = self._settings.session
            # What is in memory is the same whatever else its settings say.
            key = "memory" if session.backend == "memory" else (session, self._project)
            opened = await self._enter("session store", key, partial(open_sessions, session, self._project))
            try:
                check_port("session_repository", opened)
            except TypeError as error:
                raise UserError(f"session.backend: {self._settings.session.backend}: {error}") from error
            repository.set_default(providers.Object(opened))  # pyright: ignore[reportUnknownMemberType]
        self._open_services()
        if self._settings.session.ttl is not None:
            pruner = Pruner(repository, self._settings.session.ttl)
            self._resources.push("session pruning", pruner.aclose)
            pruner.start()
        for provider in self.container.models.providers.values():
            if overriding(provider) is None:
                await self._do(provider)
        if overriding(self.container.tools) is None:
            tools = self.container.tools
            tools.set_default(providers.Object(await self._open_tools()))  # pyright: ignore[reportUnknownMemberType]

    def _open_services(self) -> None:
        """What works for all invocations, on the session store."""
        container, resources = self.container, self._resources
        resources.push("session leases", container.leases().aclose)
        resources.push("requests to other processes", container.stop_requests().aclose)
        if self._settings.server.replay_ttl:
            if container.invocations() is None:
                backend = self._settings.session.backend
                raise UserError(
                    f"server.replay_ttl: the session backend {backend!r} can't keep invocations: set it to 0"
                )
            resources.push("lines of invocations", container.recorder().aclose)

    def _set_authenticator(self, authenticator: Authenticator | None) -> None:
        provider = self.container.authenticator
        provider.set_default(providers.Object(authenticator))  # pyright: ignore[reportUnknownMemberType]

    async def _open_authenticator(self) -> Authenticator:
        auth = self._settings.server.auth
        try:
            opened: object = await self._resources.enter("authenticator", self._auth_adapter()(auth, self._project))
        except UserError:
            raise
        except Exception as error:
            if auth.provider is None:
                raise
            # Without its text, which may quote a secret.
            raise UserError(
                f"server.auth.provider: {auth.provider!r} can't be opened: {type(error).__name__}; "
                "the log has more with --log-level debug"
            ) from error
        if not isinstance(opened, Authenticator):
            # None above all, which would let everyone in.
            raise UserError(
                f"server.auth.provider: {auth.provider}: a {type(opened).__name__} is no Authenticator: "
                "it lacks the method of that port"
            )
        return opened

    async def _open_tools(self) -> Toolkit:
        for name, settings in self._settings.mcp_servers.items():
            server: ToolServer = self._server_adapter(name, settings)(name, settings, self._project)
            self.servers[name] = server
            self._resources.push(f"MCP server {name!r}", server.aclose)
        # Side by side: the start takes as long as the slowest of them.
        opened = await asyncio.gather(*(server.open() for server in self.servers.values()), return_exceptions=True)
        failures = [error for error in opened if error is not None]
        for error in failures:
            if not isinstance(error, ToolServerError):
                raise error
        if failures:
            raise UserError("\n".join(str(error) for error in failures)) from failures[0]
        toolkit = Toolkit()
        try:
            for server in self.servers.values():
                toolkit.add_source(server)
        except ToolNameError as error:
            raise UserError(str(error)) from error
        return toolkit

    def _make_model(self, slot: str, settings: ModelSettings) -> ChatModel:
        model: ChatModel = self._model_adapter(slot, settings)(slot, settings)
        close = getattr(model, "aclose", None)
        if close is not None:
            self._resources.push(f"model {slot!r}", close)
        return model

    async def _start_app(self, app_class: type[AgentApp]) -> AgentApp:
        try:
            app = self._app = app_class()
            await app.on_startup()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # Also `sys.exit()`, and a cancellation of something of the app's own: they would end more than the start.
            raise explained(error, self._project, app_class.__name__) from error
        self._resources.push("on_shutdown", app.on_shutdown)
        return app

    def _auto_saved(self) -> dict[str, StateModule]:
        if not self._settings.session.auto_save or self._app is None:
            return {}
        return find_state_modules(self._app)

    async def _forget_modules(self) -> None:
        self._modules.remove()
