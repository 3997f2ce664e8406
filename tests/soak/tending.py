"""The processes of the soak, and the tender that starts again what ended, as an operating system's would."""

import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil

from tests.faults.fix_processes import Process
from tests.faults.processes import Where
from tests.forked import FORKED
from tests.soak.roles import run_soaked

ROLES = {
    "write": 2,
    "read": 2,
    "embed": 3,
    "embed-other": 1,
    "project": 2,
    "project-other": 1,
    "collect": 1,
    "operate": 1,
}
"""How many of each run. Those of even numbers, and two of the singles, reach the server by the proxy."""

_BY_PROXY_TOO = ("embed-other", "operate")
_LOOK_SECONDS = 0.2
_ERROR = re.compile(
    r"^[ |]*((?:[a-z]\w*\.)+[A-Z]\w+|[A-Z]\w*Error)(?:$|:(?:.*\(\w+, (\w{5})\))?)", re.MULTILINE
)
"""What a traceback ends with, inside groups of them too."""


class Tended(Process):
    """One process, which at most one fault has in hand."""

    in_hand = False
    spared = False
    """Whether it lives from the beginning to the end, so that its memory can be compared."""

    def restart(self) -> None:
        self._said = len(self._stderr())
        self._ready, ready = FORKED.Pipe(duplex=False)
        self.running = FORKED.Process(
            target=run_soaked, args=(self.role, self._where, self.name, ready), daemon=True
        )
        self.running.start()
        ready.close()

    @property
    def memory(self) -> int:
        """Its resident memory in bytes; 0 where it is not there."""
        try:
            return psutil.Process(self.running.pid).memory_info().rss
        except psutil.Error:
            return 0

    @property
    def ended_with(self) -> str:
        """How it ended: by which signal, or with which error."""
        code = self.running.exitcode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        said = _ERROR.findall(self._stderr()[self._said :])
        # A task whose neighbour ended by an error cannot hand on its work: the neighbour's error counts.
        errors = [error for error in said if error[0] != "anyio.BrokenResourceError"] or said
        return f"exit {code}: {' '.join(errors[-1]).rstrip() if errors else 'nothing said'}"

    async def hangs(self) -> str:
        """What it waits for."""
        said = len(self._stderr())
        self.signal(signal.SIGUSR1)
        await anyio.sleep(2)
        return f"hangs: {self._stderr()[said:]}"

    def _stderr(self) -> str:
        path: Path = self._where.folder / f"{self.name}.stderr"
        return path.read_text(errors="replace") if path.exists() else ""


class Tender:
    """Every process, by name, and what was seen of those that ended by themselves."""

    def __init__(self, direct: Where, by_proxy: Where) -> None:
        self.processes: dict[str, Tended] = {}
        self.ended: Counter[str] = Counter()
        for role, count in ROLES.items():
            for number in range(1, count + 1):
                proxied = number % 2 == 0 or role in _BY_PROXY_TOO
                name = f"{role}-{number}"
                self.processes[name] = Tended(role, by_proxy if proxied else direct, name)
                self.processes[name].spared = number == 1 and count > 1

    @asynccontextmanager
    async def tending(self) -> AsyncIterator[None]:
        """Starts again whatever ends by itself, while the block runs."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tend)
            yield
            tasks.cancel_scope.cancel()

    async def _tend(self) -> None:
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            for process in self.processes.values():
                if not process.in_hand and not process.running.is_alive():
                    self.ended[f"{process.role}: {process.ended_with}"] += 1
                    process.restart()

    def of(self, *roles: str) -> list[Tended]:
        """The processes of the roles, or all."""
        return [process for process in self.processes.values() if not roles or process.role in roles]

    async def stop(self, *roles: str) -> list[str]:
        """Asks the processes of the roles, or all, to end; returns who did not do so as he should."""
        asked = self.of(*roles)
        for process in asked:
            process.in_hand = True
            await process.terminate()
        ends = [(process, await process.ended()) for process in asked]
        return [
            f"{process.name} at SIGTERM: {process.ended_with if code is not None else await process.hangs()}"
            for process, code in ends
            if code != 0
        ]

    def memory(self) -> dict[str, int]:
        """The most resident memory of one process of each role that lives through the soak, in bytes."""
        return {
            role: max(
                process.memory for process in self.of(role) if process.spared or len(self.of(role)) == 1
            )
            for role in ROLES
        }

    def end(self) -> None:
        """`kill -9` for all."""
        for process in self.processes.values():
            process.end()
