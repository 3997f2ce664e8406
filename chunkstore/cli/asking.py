"""Asks a person before something is done that cannot be undone."""

import sys

import anyio

from chunkstore.errors import InvalidInput


async def confirmed(question: str, *, yes: bool) -> bool:
    """Whether a person says yes, or `--yes` did. Raises InvalidInput where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidInput("--yes", None, f"nobody can be asked {question!r} here: give --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    await anyio.wait_readable(sys.stdin)  # and not a thread, which Ctrl-C could not end
    return sys.stdin.readline().strip().lower() in ("y", "yes")
