"""Several as one: traces and metrics of the same operations."""

from collections.abc import Mapping, Sequence

from agentscope.telemetry._off import OFF
from agentscope.telemetry._port import Observation, Observer, Operation, Telemetry


def together(parts: Sequence[Telemetry]) -> Telemetry:
    """One that tells all of them; ``OFF`` when there are none."""
    if not parts:
        return OFF
    return parts[0] if len(parts) == 1 else _Telemetries(parts)


class _Observers:
    __slots__ = ("_observers", "wants_contents")

    def __init__(self, observers: Sequence[Observer], *, wants_contents: bool) -> None:
        self._observers = observers
        self.wants_contents = wants_contents

    def begin(self, operation: Operation, name: str = "", **about: object) -> Observation:
        """See ``Observer.begin``."""
        begun = [observer.begin(operation, name, **about) for observer in self._observers]
        return _Observations(begun, wants_contents=self.wants_contents)


class _Telemetries(_Observers):
    __slots__ = ("_telemetries",)

    def __init__(self, telemetries: Sequence[Telemetry]) -> None:
        super().__init__(telemetries, wants_contents=any(each.wants_contents for each in telemetries))
        self._telemetries = telemetries

    def error_sent(self, code: str) -> None:
        """See ``Telemetry.error_sent``."""
        for telemetry in self._telemetries:
            telemetry.error_sent(code)


class _Observations(_Observers):
    __slots__ = ("_observations",)

    def __init__(self, observations: Sequence[Observation], *, wants_contents: bool) -> None:
        super().__init__(observations, wants_contents=wants_contents)
        self._observations = observations

    @property
    def headers(self) -> Mapping[str, str]:
        """See ``Observation.headers``: those of the first that has any."""
        for observation in self._observations:
            if observation.headers:
                return observation.headers
        return OFF.headers

    def end(self, error: BaseException | None = None, **about: object) -> None:
        """See ``Observation.end``."""
        for observation in self._observations:
            observation.end(error, **about)
