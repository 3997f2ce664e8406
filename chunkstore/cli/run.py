"""Runs one command: parses it, and makes an exit code of what it came to."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from inspect import iscoroutinefunction

from cyclopts import CycloptsError

from chunkstore.cli.app import load
from chunkstore.cli.codes import Exit, code_of
from chunkstore.cli.output import complain
from chunkstore.errors import ChunkstoreError
from chunkstore.groups import leaves


def run(tokens: Sequence[str]) -> int:
    """The exit code of the command that the tokens name, after it ran."""
    try:
        code = _run(tokens)
        sys.stdout.flush()
    except CycloptsError as error:
        complain(_message(error))
        return Exit.USAGE
    except BrokenPipeError:  # the reader, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    if code in (Exit.INTERRUPTED, Exit.TERMINATED, Exit.HANGS):
        _end_at_once(code)
    return code


def _run(tokens: Sequence[str]) -> Exit:
    command, bound, _ = load().parse_args(tokens, exit_on_error=False, print_error=False)
    if not iscoroutinefunction(command):  # --help and --version
        command(*bound.args, **bound.kwargs)
        return Exit.OK
    # Late: help must not pay for an event loop.
    from chunkstore.cli.interrupts import Interrupts

    interrupts = Interrupts()
    try:
        code = interrupts.run(partial(command, *bound.args, **bound.kwargs))
    except (ChunkstoreError, ExceptionGroup) as error:
        code = _complained(error)
    return interrupts.code() or code


def _complained(error: Exception) -> Exit:
    found = list(leaves(error))
    ours = [leaf for leaf in found if isinstance(leaf, ChunkstoreError)]
    if len(ours) < len(found):
        raise next((leaf for leaf in found if isinstance(leaf, BrokenPipeError)), error)
    complain(str(ours[0]))
    return code_of(ours[0])


def _message(error: CycloptsError) -> str:
    error.verbose = False
    named = " ".join(["chunkstore", *(error.command_chain or ())])
    return f"{str(error).strip().rstrip('.')}: see `{named} --help`"


def _end_at_once(code: Exit) -> None:
    # A thread that loads or runs a model cannot be ended, and must not meet the interpreter's end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
