"""The process of a command ends even when something in it does not."""

import resource
import signal
import subprocess
import sys

import pytest

from agentscope_cli._process import outliving_hangups
from processes import environment

PROGRAM = """
import asyncio, threading
from agentscope_cli import _process

_process._TASK_SECONDS = _process._THREAD_SECONDS = 0.2

async def main():
    {what}

_process.run_process(main())
print("said all the same")
"""

STUBBORN_TASK = """
    async def stays():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
    globals()["kept"] = asyncio.create_task(stays(), name="the stubborn one")
    await asyncio.sleep(0)
"""
BUSY_THREAD = """
    threading.Thread(target=threading.Event().wait, name="the busy one").start()
"""
TOOL_THREAD = """
    globals()["kept"] = asyncio.create_task(asyncio.to_thread(threading.Event().wait))
    await asyncio.sleep(0)
"""


def run(what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(what=what)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=environment(),
    )


@pytest.mark.parametrize(
    ("what", "status", "named"),
    [
        ("await asyncio.sleep(0)", 0, ""),
        (STUBBORN_TASK, 0, "the stubborn one"),
        (BUSY_THREAD, 1, "the busy one"),
        (TOOL_THREAD, 1, "asyncio_0"),
    ],
    ids=["nothing", "a task", "a thread", "a tool's thread"],
)
def test_what_goes_on_is_named_and_left_behind(what: str, status: int, named: str) -> None:
    done = run(what)
    assert (done.returncode, done.stdout) == (status, "said all the same\n"), done.stderr
    assert named in done.stderr


def test_what_did_not_close_is_told_and_is_no_success() -> None:
    done = run('raise ExceptionGroup("some resources did not close", [OSError("the store is gone")])')
    assert (done.returncode, done.stdout) == (1, "")
    assert "stopped, but some resources did not close" in done.stderr
    assert "the store is gone" in done.stderr


def test_a_status_is_kept_though_a_thread_is_left_behind() -> None:
    done = run(f"{BUSY_THREAD}\n    return 75")
    assert (done.returncode, done.stdout) == (75, "")
    assert "the busy one" in done.stderr


def test_a_third_signal_ends_a_process_whose_event_loop_is_blocked() -> None:
    done = run("""
    import os, signal
    from agentscope.server._signals import stop_signals

    with stop_signals():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        while True:
            pass
    """)
    assert done.returncode == -signal.SIGTERM


def test_after_a_second_signal_what_blocks_the_event_loop_is_interrupted() -> None:
    done = run("""
    import os, signal
    from agentscope.server import _signals

    _signals._DEAF_SECONDS = 0.2
    with _signals.stop_signals():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        while True:
            pass
    """)
    assert done.returncode == 1
    assert "blocked the event loop for 0.2 seconds after a second signal to stop" in done.stderr


def test_a_signal_wakes_the_loop_also_when_it_comes_to_another_thread() -> None:
    done = run("""
    import signal, time
    from agentscope.server._signals import stop_signals

    def send():
        # Nobody announces that the loop waits.
        time.sleep(0.5)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with stop_signals() as stop:
        threading.Thread(target=send).start()
        await stop.asked.wait()
    """)
    assert done.returncode == 0, done.stderr


def test_a_process_may_open_as_many_files_as_it_is_allowed() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = (
        "import resource; from agentscope_cli._process import allow_many_files\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard})); allow_many_files()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    soft, still_hard = map(int, done.stdout.split())
    assert soft == (still_hard if hard != resource.RLIM_INFINITY else 1_048_576)


def test_a_hangup_that_comes_too_early_or_too_late_does_nothing() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with outliving_hangups():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_hangup_stays_ignored_where_it_is() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with outliving_hangups():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
