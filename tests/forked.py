"""Processes forked from one that has imported everything already, so that a start takes no second."""

import atexit
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import chunkstore.cli

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "tests.faults.processes",
        "tests.soak.roles",
        "tests.forked",
        *(f"chunkstore.cli.{name}" for name in ("ingesting", "run", "slow")),
    ]
)


class Ended(NamedTuple):
    """The exit code of a command, and what it wrote."""

    code: int | None
    out: str
    err: str


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, said: Path, seconds: float
) -> Ended:
    """Runs `chunkstore` with these arguments to its end; no code where it was killed for its time."""
    out, err = said / "out", said / "err"
    process = FORKED.Process(target=_command, args=(arguments, environment, folder, out, err))
    process.start()
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    return Ended(code, out.read_text(), err.read_text())


def _command(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, out: Path, err: Path
) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["chunkstore", *arguments]
    try:
        chunkstore.cli.main()
    finally:
        atexit._run_exitfuncs()  # a forked process leaves them out
