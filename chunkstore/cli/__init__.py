"""The command line: `chunkstore COMMAND`. Composes consumers, projections and ingestion at the system's edge.

Every module here imports what is heavy inside its commands, so that help and short commands start at once.
"""

import sys


def main() -> None:
    """Runs the command that the process was started with, and ends the process with its exit code."""
    try:
        from chunkstore.cli.run import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
