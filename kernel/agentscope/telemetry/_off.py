"""No telemetry: what stands in its place, and does nothing."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from agentscope.telemetry._port import Operation

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Off:
    """Is told and does nothing. Whoever would have work with what it tells asks whether it is ``OFF``."""

    __slots__ = ()

    @property
    def wants_contents(self) -> bool:
        """See ``Observer.wants_contents``."""
        return False

    @property
    def headers(self) -> Mapping[str, str]:
        """See ``Observation.headers``."""
        return _NOTHING

    def begin(self, operation: Operation, name: str = "", **about: object) -> "Off":
        """See ``Observer.begin``."""
        return self

    def end(self, error: BaseException | None = None, **about: object) -> None:
        """See ``Observation.end``."""

    def error_sent(self, code: str) -> None:
        """See ``Telemetry.error_sent``."""


OFF: Final = Off()
"""It holds nothing: there is one."""
