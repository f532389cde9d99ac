"""The supervisor of ``agentscope run --workers``: it owns the port, and keeps that many processes serving it.

It imports nothing of the app and nothing that serves. Of a worker's side, see ``agentscope.server.Worker``.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agentscope.hangup import Terminal
from agentscope_cli._metrics_folder import MetricsFolder
from agentscope_cli._worker_process import Command, WorkerProcess, own_command, shell_status

_log = logging.getLogger("agentscope.cli")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0

_HURRIED_SECONDS = 15.0
"""How long workers have after a second signal."""

_HEALTHY_SECONDS = 30.0
"""A worker that has served this long is no sign of a fault that stays: the next pause is the first one again."""

_USER_ERROR = 2

_RESTART = 75
"""The status that a platform's wish for a restart ends with; see ``agentscope.server.serve``."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ready:
    """All workers answer requests. ``facts`` is what the first of them serves, by name."""

    address: str
    facts: Mapping[str, str]
    pids: Sequence[int]


class Supervisor:
    """Keeps ``count`` workers on a bound socket until it is told to stop.

    A worker is this program started again, with the same command line and a hidden option; the socket is inherited.
    One that ends is replaced, after a pause that doubles from half a second to 30 while none serves for long.
    ``on_ready`` is called once, when all of them answer. ``command`` is another than this process's own. ``metrics``
    is where the workers keep theirs, None when they keep none. ``patience`` is how many seconds after the first signal
    workers are killed that have not ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        count: int,
        on_ready: Callable[[Ready], None],
        *,
        command: Command | None = None,
        metrics: MetricsFolder | None = None,
        patience: float = 120.0,
    ) -> None:
        self._sock = sock
        self._patience = patience
        self._deadline: asyncio.TimerHandle | None = None
        self._metrics = metrics
        self._command = command or own_command
        self._count = count
        self._on_ready = on_ready
        self._workers: dict[int, WorkerProcess] = {}
        self._facts: dict[str, Any] | None = None
        self._announced = False
        self._asked = 0
        self._terminal = Terminal()
        self._stopping = asyncio.Event()
        self._first_answers = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Start, watch and stop the workers; return the exit status of this process.

        That is 0 after an orderly end, 75 when the platform asks for a restart, 2 when the workers could not start by
        a mistake of the user's, which one of them has told, and otherwise that of a worker that did not end well, as a
        shell has it.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # Who has it ignored, as nohup has SIGHUP, wants it so. A shell that starts a job does that to SIGINT.
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal, number)
        first = asyncio.create_task(self._keep(0))
        answers = asyncio.create_task(self._first_answers.wait())
        # One alone at first: what a start does once, such as a migration, and what a mistake in the project has to
        # say, is not done or said several times.
        await asyncio.wait([first, answers], return_when=asyncio.FIRST_COMPLETED)
        answers.cancel()
        rest = () if self._stopping.is_set() else range(1, self._count)
        try:
            await asyncio.gather(first, *(self._keep(index) for index in rest))
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
        return self._status

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and not self._terminal.is_gone:
            self._reload()
        else:
            self._stop_all(number)

    def _reload(self) -> None:
        if not self._stopping.is_set():
            for worker in self._workers.values():
                worker.tell(b"reload")

    def _stop_all(self, number: int = signal.SIGTERM) -> None:
        self._asked += 1
        self._stopping.set()
        loop = asyncio.get_running_loop()
        if self._asked <= 2:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = loop.call_later(self._patience if self._asked == 1 else _HURRIED_SECONDS, self._kill)
        if self._asked > 2:
            for worker in self._workers.values():
                worker.signal(signal.SIGKILL)
            loop.remove_signal_handler(number)
            signal.raise_signal(number)
        for worker in self._workers.values():
            self._stop(worker)

    def _kill(self) -> None:
        for worker in self._workers.values():
            _log.error("worker %d, pid %d, has not ended and is killed", worker.index, worker.pid)
            worker.signal(signal.SIGKILL)

    def _stop(self, worker: WorkerProcess) -> None:
        # Two signals that come quickly are one to who gets them: the second time it is told by the channel.
        if self._asked > 1:
            worker.tell(b"hurry")
        else:
            worker.signal(signal.SIGTERM)

    async def _keep(self, index: int) -> None:
        """Have a worker in this place until the end."""
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                worker = await self._start(index)
            except OSError as error:
                # Too many processes, or too little memory: the others go on meanwhile.
                _log.warning("worker %d can't be started: %s; the next try is in %g s", index, error, pause)
                pause = await self._rest(pause)
                continue
            status = await worker.listen(self._on_event)
            if self._metrics is not None:
                await asyncio.to_thread(self._metrics.forget, worker.pid)
            del self._workers[index]
            self._let_go()
            if self._stopping.is_set():
                # A signal may meet a worker that does not handle any yet.
                if status not in (0, -signal.SIGTERM):
                    self._fail(worker, status)
                return
            served = 0.0 if worker.ready_at is None else asyncio.get_running_loop().time() - worker.ready_at
            if worker.ready_at is None and self._gives_up(index, status):
                self._give_up(worker, status)
                return
            if served >= _HEALTHY_SECONDS:
                pause = _FIRST_PAUSE
            level = logging.ERROR if status else logging.INFO
            _log.log(level, "worker %d, %s: the next one starts in %g s", index, worker.ending(status), pause)
            pause = await self._rest(pause)

    async def _rest(self, pause: float) -> float:
        """Wait that long, or until the end; return the next pause."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stopping.wait()
        return min(2 * pause, _LONGEST_PAUSE)

    def _gives_up(self, index: int, status: int) -> bool:
        """Whether a worker that could not start means that none can."""
        return not self._announced and (status == _USER_ERROR or (index == 0 and not self._first_answers.is_set()))

    def _give_up(self, worker: WorkerProcess, status: int) -> None:
        if status != _USER_ERROR:
            _log.error("worker %d, %s before it could serve", worker.index, worker.ending(status))
        self._status = shell_status(status)
        self._stopping.set()
        for other in self._workers.values():
            self._stop(other)

    def _fail(self, worker: WorkerProcess, status: int) -> None:
        _log.error("worker %d, %s instead of stopping", worker.index, worker.ending(status))
        self._status = self._status or shell_status(status)

    async def _start(self, index: int) -> WorkerProcess:
        environment = None if self._metrics is None else {**os.environ, **self._metrics.environment}
        worker = self._workers[index] = await WorkerProcess.start(self._command, index, self._sock, environment)
        if self._stopping.is_set():
            # It was not there yet when the others were told.
            self._stop(worker)
        return worker

    def _on_event(self, worker: WorkerProcess, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            worker.ready_at = asyncio.get_running_loop().time()
            self._take_note(worker, event)
        elif event["event"] == "stopping" and not self._stopping.is_set():
            # It was told to by somebody else. It is replaced, and the others go on.
            worker.tell(b"leave")
        elif event["event"] == "reload":
            self._reload()
        elif event["event"] == "restart" and not self._stopping.is_set():
            self._status = _RESTART
            self._stop_all()
        elif event["event"] == "drained":
            worker.is_drained = True
            self._let_go()

    def _take_note(self, worker: WorkerProcess, event: dict[str, Any]) -> None:
        if worker.index == 0:
            self._facts = self._facts or event
            self._first_answers.set()
        serving = [self._workers[index].pid for index in sorted(self._workers) if self._workers[index].ready_at]
        if self._announced:
            _log.info("worker %d serves, pid %d", worker.index, worker.pid)
        elif len(serving) == self._count and self._facts is not None:
            self._announced = True
            self._on_ready(Ready(self._facts["address"], self._facts["facts"], serving))

    def _let_go(self) -> None:
        """Once all are drained, let them leave the port together.

        Until then they answer that the server is not ready. A port that is open while nobody serves it would lose
        those who come to it.
        """
        workers = self._workers.values()
        if self._stopping.is_set() and all(worker.is_drained for worker in workers):
            for worker in workers:
                if not worker.is_released:
                    worker.is_released = True
                    worker.tell(b"close")
            # They close theirs within a moment; whoever comes then is to be refused, not to wait.
            self._sock.close()
