"""nginx as ``deploy/nginx.conf`` has it, in front of ports of this machine."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
_SECONDS = 30


def nginx() -> str:
    """The program. Fails, with what to do, when it isn't there."""
    # Debian's is where only root looks.
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert found is not None, "these tests need nginx: apt-get install nginx-light"
    return found


def configuration(folder: Path, port: int, replicas: Sequence[int]) -> Path:
    """The file for this machine: that port, those replicas, and that folder in place of /tmp; all else as it is."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    servers = " ".join(rf"server 127.0.0.1:{replica}\1;" for replica in replicas)
    for pattern, replacement in (
        # Debian's nginx is older than the image's, and has no `resolve`.
        (r"server app:8080 resolve([^;]*);", servers),
        (r"listen 8080;", f"listen 127.0.0.1:{port};"),
    ):
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    file = folder / "nginx.conf"
    file.write_text(text.replace("/tmp/", f"{folder}/"), encoding="utf-8")
    return file


def command(file: Path, *options: str) -> list[str]:
    """nginx with that file, in the foreground, as who runs the tests."""
    user = " user root;" if os.geteuid() == 0 else ""
    return [nginx(), "-p", str(file.parent), "-c", str(file), "-g", f"daemon off;{user}", *options]


@contextmanager
def running_nginx(folder: Path, *replicas: int) -> Generator[str]:
    """nginx in front of those ports of 127.0.0.1; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "output").open("w+b") as output:
        port: int = listener.getsockname()[1]
        # It takes the open port over, as a newer nginx does from an older one: from the start nobody is refused.
        process = subprocess.Popen(
            command(configuration(folder, port, replicas)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            env={"NGINX": f"{listener.fileno()};", "PATH": os.environ.get("PATH", os.defpath)},
        )
        try:
            yield f"http://127.0.0.1:{port}"
            output.seek(0)
            assert process.poll() is None, f"nginx has ended:\n{output.read().decode()}"
        finally:
            # Its workers end with it, and with all connections.
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_SECONDS)
            finally:
                process.kill()
