"""Chromium without a window."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 30


def chromium() -> str:
    """The program. Fails, with what to do, when it isn't there."""
    found = shutil.which("chromium")
    assert found is not None, "these tests need Chromium: apt-get install chromium"
    return found


@contextmanager
def showing(url: str, folder: Path) -> Generator[Path]:
    """A page, while the block runs; the file of what the browser prints. ``folder`` is for all that it writes."""
    output = folder / "output"
    options = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--disable-extensions"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"]
    # Its sandbox needs what a container doesn't allow, and the page is ours.
    unprotected = ["--no-sandbox"]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [chromium(), *options, *quiet, *unprotected, f"--user-data-dir={folder / 'profile'}", url],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "TMPDIR": str(folder)},
            # It has children, which are to end with it.
            start_new_session=True,
        )
        try:
            yield output
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_SECONDS)
