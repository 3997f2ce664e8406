"""Asks a person before something is done that cannot be undone."""

import sys

from chunkstore.errors import ConfirmationNeeded


async def confirmed(question: str, *, yes: bool) -> bool:
    """Whether a person says yes, or `--yes` did. Raises ConfirmationNeeded where nobody can be asked."""
    if yes:
        return True
    check_can_ask(question)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    import anyio

    await anyio.wait_readable(sys.stdin)  # and not a thread, which Ctrl-C could not end
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def check_can_ask(question: str) -> None:
    """Raises ConfirmationNeeded unless somebody sits at a terminal."""
    if not can_ask():
        raise ConfirmationNeeded(f"nobody can be asked here, so give --yes: {question}")


def can_ask() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin.isatty()
