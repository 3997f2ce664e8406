"""The tables of a store, as small as the protocol allows: numbers and letters, one collection, a few rows.

A chunk's text is one letter. A file's content is a string such as `ab|c`: a bar parts segments. Numbers
that a sequence would give are names that say who made the row, so that traces can be read.
"""

from typing import NamedTuple

from tests.model.protocol.postgres import Rows


class File(NamedTuple):
    """A file's row; the key is None once erased."""

    key: str | None
    last_version: int = 0
    latest: int = 0
    target: int = 0


class Version(NamedTuple):
    """A version's row. `deadline_from` is the model's own note, for an invariant."""

    state: str
    segments: tuple[str, ...] = ()
    pinned: bool = False
    overdue: bool = False
    deadline_from: int = 0


class Segment(NamedTuple):
    """A run of chunks of one file; equal runs of a file share a segment. The digest is the run's letters."""

    file: str
    chunks: tuple[str, ...]
    digest: str


class Chunk(NamedTuple):
    """A chunk version."""

    file: str
    text: str


class Event(NamedTuple):
    """One event of the log, at the key `(partition, last offset)`."""

    type: str
    n: int = 1
    file: str | None = None
    version: int = 0
    chunks: tuple[str, ...] = ()
    model: str | None = None
    previous: int | None = None
    target: bool = True
    text: str = ""


class Checkpoint(NamedTuple):
    """The progress row of an ordered group in one partition, with its lease (rule 22)."""

    position: int = 0
    epoch: int = 0
    owner: str | None = None
    expired: bool = False


class Lease(NamedTuple):
    """A range of a shared group, at the key `(model, partition, lo)`."""

    hi: int
    epoch: int = 1
    attempts: int = 0
    owner: str | None = None
    expired: bool = False


class Done(NamedTuple):
    """A done mark, with the model's own note of who wrote it."""

    owner: str
    epoch: int
    hi: int


class Active(NamedTuple):
    """What searches see of a file, and how far its next target is known to be complete."""

    version: int | None = None
    target: int = 0
    cursor: int = 0


class Model(NamedTuple):
    """A model of the collection; `rebuilding` says that a second pair of tables is being filled."""

    rebuilding: bool = False


# In the order in which transactions lock rows; tables that are not locked but written alone come after.
TABLES = (
    "progress",  # (model, partition) -> True: the shared group's row, which is a lock
    "checkpoints",  # (model, partition) -> Checkpoint
    "leases",  # (model, partition, lo) -> Lease
    "done",  # (model, partition, lo) -> Done
    "files",  # file -> File
    "keys",  # key -> file: the unique index on files.key
    "versions",  # (file, version) -> Version
    "segments",  # segment -> Segment
    "idempotency_keys",  # (file, key) -> version
    "chunks",  # chunk -> Chunk
    "embeddings",  # (chunk, model) -> text of the vector
    "dead_letters",  # (chunk, model) -> state
    "models",  # model -> Model
    "search",  # (chunk, model, table) -> text of the vector
    "active_rows",  # (chunk, model, table) -> file
    "active",  # (file, model) -> Active
    "partitions",  # partition -> True: a lock
    "events",  # (partition, last offset) -> Event
    "time",  # 'now' -> how often time was let pass
)

IMMUTABLE = frozenset({"events", "chunks", "embeddings", "segments"})

LOCK_ORDER = {
    "progress": 0,
    "checkpoints": 1,
    "leases": 1,
    "files": 2,
    "chunks": 3,
    "models": 5,
    "partitions": 9,
}

Tables = dict[str, Rows]
