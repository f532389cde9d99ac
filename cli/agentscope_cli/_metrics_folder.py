"""The folder in which workers keep their metrics, so that a scrape of any of them shows those of all."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class MetricsFolder:
    """The folder at ``path``, as ``prometheus_client`` uses it."""

    path: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What a worker's environment has to have before it starts: the library reads it when it is imported."""
        return {_VARIABLE: str(self.path)}

    def forget(self, pid: int) -> None:
        """The worker with that process id has ended. What it has counted stays; what it had at the moment does not."""
        for file in self.path.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)


@contextmanager
def metrics_folder(*, wanted: bool = True) -> Generator[MetricsFolder | None]:
    """A folder, deleted with all that is in it at the end; None when no metrics are wanted."""
    if not wanted:
        yield None
        return
    # Others on the machine must not read or change it: TemporaryDirectory makes it for this user alone.
    with TemporaryDirectory(prefix="agentscope-metrics-", ignore_cleanup_errors=True) as path:
        yield MetricsFolder(Path(path))
