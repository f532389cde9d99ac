"""The container: every port as a provider, and the check that the graph of them can be built."""

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, cast

from dependency_injector import containers, providers

from agentscope.auth import Authenticator
from agentscope.errors import GraphError
from agentscope.model import ChatModel
from agentscope.runtime.settings import Settings
from agentscope.session import InvocationStore, Leases, Recorder, SessionRepository, SessionStore, StopRequests
from agentscope.telemetry import OFF, Telemetry
from agentscope.tool import Toolkit

_REJECTING_PATIENCE = 0.5


def _invocations_of(repository: SessionRepository) -> InvocationStore | None:
    """Where that store knows the invocations of all processes; None when it can't, or was made without."""
    return getattr(repository, "invocations", None)


def _lease_patience(settings: Settings) -> float:
    """How many seconds to wait for a session that another process uses."""
    if settings.session.on_conflict == "reject":
        # The lease of an invocation that is over comes back a moment after the end of its answer.
        return min(_REJECTING_PATIENCE, settings.session.queue_timeout)
    return settings.session.queue_timeout


def _replacing(
    settings: Settings, stop_requests: StopRequests
) -> Callable[[str, str | None], AbstractAsyncContextManager[None]] | None:
    """How to ask another process for a session; None where one waits for it."""
    return stop_requests.replacing if settings.session.on_conflict == "replace" else None


class KernelContainer(containers.DeclarativeContainer):
    """What a runtime is made of. Every provider can be overridden, before and after the start.

    The container is synchronous. What must be opened is opened by the runtime, which gives it to the ``Dependency``
    here as its default, so that an override always stands above it.
    """

    settings: providers.Dependency[Settings] = providers.Dependency(instance_of=Settings)
    session_caller: providers.Dependency[Any] = providers.Dependency()
    auto_saved: providers.Dependency[Any] = providers.Dependency()
    stop_here: providers.Dependency[Any] = providers.Dependency()
    # Without `instance_of`: to check a protocol takes 15 microseconds, at each of a turn's calls. See `check_port`.
    session_repository: "providers.Dependency[SessionRepository]" = cast("Any", providers.Dependency())
    # The provider, not what it gives now: what is already built follows an override.
    invocations: providers.Callable[Any] = providers.Callable(_invocations_of, session_repository)
    stop_requests: providers.Singleton[StopRequests] = providers.Singleton(
        StopRequests, store=invocations.provider, stop_here=stop_here
    )
    recorder: providers.Singleton[Recorder] = providers.Singleton(
        Recorder,
        store=invocations.provider,
        kept=settings.provided.server.replay_ttl,
        alive=settings.provided.session.lease_ttl,
    )
    leases: providers.Singleton[Leases] = providers.Singleton(
        Leases,
        repository=session_repository.provider,
        ttl=settings.provided.session.lease_ttl,
        patience=providers.Callable(_lease_patience, settings),
        replacing=providers.Callable(_replacing, settings, stop_requests),
    )
    session: providers.Singleton[SessionStore] = providers.Singleton(
        SessionStore,
        repository=session_repository.provider,
        leases=leases,
        caller=session_caller,
        auto=auto_saved,
    )
    models: providers.Aggregate[ChatModel] = providers.Aggregate()
    tools: providers.Dependency[Toolkit] = providers.Dependency(instance_of=Toolkit)
    # None: everyone may call.
    authenticator: "providers.Dependency[Authenticator | None]" = cast("Any", providers.Dependency())
    telemetry: "providers.Dependency[Telemetry]" = cast("Any", providers.Dependency(default=OFF))


OPENED_AT_START = frozenset({"session_repository", "tools", "authenticator"})
"""The dependencies that have no value before the runtime has opened them."""


def check_port(name: str, replacement: object) -> None:
    """Raise ``TypeError`` when an object can't be what the provider of that name gives."""
    if name == "tools" and not isinstance(replacement, Toolkit):
        raise TypeError(f"tools is a {type(replacement).__name__}: give a Toolkit, or FakeToolkit(function, …)")
    if name == "session_repository" and not isinstance(replacement, SessionRepository):
        raise TypeError(
            f"{name}: a {type(replacement).__name__} is no SessionRepository: it lacks methods of that port"
        )
    if name == "telemetry" and not isinstance(replacement, Telemetry):
        raise TypeError(f"{name}: a {type(replacement).__name__} is no Telemetry: it lacks methods of that port")
    if name == "authenticator" and not isinstance(replacement, Authenticator | None):
        raise TypeError(
            f"{name}: a {type(replacement).__name__} is no Authenticator: it lacks the method of that port"
        )


def check_models(models: object) -> None:
    """Raise ``TypeError`` when these can't be models by slot."""
    if not isinstance(models, Mapping):
        raise TypeError(f"models is a {_shown(models)}: give models by slot, such as {{'main': model}}")
    for slot, model in cast("Mapping[object, object]", models).items():
        if isinstance(model, type) or not callable(getattr(model, "stream", None)):
            raise TypeError(f"the model of the slot {slot!r} is a {_shown(model)}: give an object with `stream`")


def _shown(value: object) -> str:
    return f"class, {value.__name__}" if isinstance(value, type) else type(value).__name__


def overriding(provider: providers.Provider[Any]) -> providers.Provider[Any] | None:
    """The provider that stands in for this one; None when nothing does."""
    # The library's type hints leave what its providers give open.
    return provider.last_overriding  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


@contextmanager
def replace(provider: providers.Provider[Any], replacement: object) -> Generator[None, None, None]:
    """Let the provider give that object until the block ends, in whatever order blocks end."""
    ours = providers.Object(replacement)
    provider.override(ours)  # pyright: ignore[reportUnknownMemberType]
    try:
        yield
    finally:
        # The library's own way back removes the last override, which may be another's.
        others = [other for other in _overrides(provider) if other is not ours]
        provider.reset_override()
        for other in others:
            provider.override(other)  # pyright: ignore[reportUnknownMemberType]


def _overrides(provider: providers.Provider[Any]) -> tuple[providers.Provider[Any], ...]:
    return provider.overridden  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def check_graph(container: containers.Container) -> None:
    """Raise ``GraphError`` when a provider has no value or can't be called with what it is given."""
    for name, provider in container.providers.items():
        if isinstance(provider, providers.Dependency):
            if not provider.is_defined and name not in OPENED_AT_START:
                raise GraphError(name, "it has no value; give it one with `.override(…)` or when the runtime is made")
        elif isinstance(provider, providers.Aggregate):
            for slot, inner in provider.providers.items():
                _check_arguments(f"{name}.{slot}", inner)
        else:
            _check_arguments(name, provider)


def _check_arguments(name: str, provider: providers.Provider[Any]) -> None:
    # An override that was made before the start is what will be called.
    provider = overriding(provider) or provider
    if not isinstance(provider, providers.Factory | providers.BaseSingleton | providers.Callable):
        return
    provides = cast("Callable[..., Any]", provider.provides)
    try:
        inspect.signature(provides).bind(*provider.args, **provider.kwargs)
    except (TypeError, ValueError) as error:
        raise GraphError(name, f"{provides!r} can't be called with what it is given: {error}") from error
