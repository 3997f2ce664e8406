"""The command line: `chunkstore COMMAND`. Composes consumers, projections and ingestion at the system's edge.

Every module here imports what is heavy inside its commands, so that help and short commands start at once.
"""

import gc
import sys

_YOUNG_OBJECTS = 100_000
"""From which the collector of cycles looks: imports make many objects and no garbage."""


def main() -> None:
    """Runs the command that the process was started with, and ends the process with its exit code."""
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        from chunkstore.cli.run import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
