"""``runtime.tools``: the toolkit of the moment."""

from collections.abc import Callable
from typing import Any, Self, cast

from dependency_injector import errors as dependency_errors

from agentscope.errors import RuntimeNotReadyError
from agentscope.tool import Toolkit


class ToolkitHandle:
    """Stands for the runtime's toolkit. It asks the container at each use, so that it follows every replacement.

    It passes for the toolkit itself: agents keep it, sessions save it.
    """

    __slots__ = ("__weakref__", "_provider")

    _provider: Callable[[], Toolkit]

    def __init__(self, provider: Callable[[], Toolkit]) -> None:
        object.__setattr__(self, "_provider", provider)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._toolkit(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._toolkit(), name, value)

    def _toolkit(self) -> Toolkit:
        try:
            return self._provider()
        except dependency_errors.Error as error:
            raise RuntimeNotReadyError(
                "runtime.tools is used before the start: register tools and make agents in on_startup"
            ) from error

    @property  # type: ignore[misc] # what stands for a toolkit is one, also for isinstance
    def __class__(self) -> type[Toolkit]:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        return Toolkit

    def __repr__(self) -> str:
        return "<tools of the runtime>"


def toolkit_handle(provider: Callable[[], Toolkit]) -> Toolkit:
    """A handle for the toolkit that ``provider`` gives."""
    return cast("Toolkit", ToolkitHandle(provider))
