"""SIGHUP has two meanings: the terminal is gone, and "read your configuration again"."""

import os


class Terminal:
    """The terminal that this process was started from, if it has one."""

    def __init__(self) -> None:
        self._was_there = _is_there()

    @property
    def is_gone(self) -> bool:
        """Whether it was closed since: SIGHUP then says that, and asks for nothing."""
        return self._was_there and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
