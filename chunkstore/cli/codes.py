"""The exit codes that scripts can use, and which error has which."""

from enum import IntEnum

from chunkstore.errors import (
    ChunkstoreError,
    ConfirmationNeeded,
    DatabaseError,
    InvalidInput,
    MissingExtra,
    ModelHangs,
    ModelMismatch,
    NotFound,
)


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    PROBLEM = 1
    USAGE = 2
    DATABASE = 3
    OUTDATED = 4
    HANGS = 5
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = """Exit codes:
  0    done
  1    done, and a problem was found: something is broken (verify), files failed
       (ingest), chunks were given up or a model was left out (consume, up --drain),
       another write came first
  2    bad usage or bad input; nothing was written
  3    the database cannot be used: no server, no rights, not migrated
  4    done, but files were left as an earlier chunker or parser made them,
       since nobody could be asked (ingest: give --rechunk or --no-rechunk)
  5    the model did not answer, and its process ended with it: start it again
  130  ended by Ctrl-C
  143  ended by SIGTERM before it was done (up, consume and project without
       --drain finish what they have in hand and end with 0)"""


def code_of(error: ChunkstoreError) -> Exit:
    """The exit code of an error."""
    match error:
        case DatabaseError():
            return Exit.DATABASE
        case InvalidInput() | NotFound() | ModelMismatch() | MissingExtra() | ConfirmationNeeded():
            return Exit.USAGE
        case ModelHangs():
            return Exit.HANGS
        case _:
            return Exit.PROBLEM
