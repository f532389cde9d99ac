"""How much memory this process has."""

import sys
from pathlib import Path

_STATUS = Path("/proc/self/statm")


def resident_megabytes() -> int:
    """The memory that is resident now, in MiB; the most there ever was, where the system does not say."""
    try:
        pages = int(_STATUS.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return _highest()
    import resource

    return pages * resource.getpagesize() // 2**20


def _highest() -> int:
    try:
        import resource
    except ImportError:
        return 0
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest // (2**20 if sys.platform == "darwin" else 2**10)
