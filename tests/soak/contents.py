"""The files of the soak: which keys there are, and what an upload of a stamp consists of.

A stamp names one operation of one writer. Everything else about the content follows from it, so that what
a file should hold can be told from the journals alone.
"""

from collections.abc import Iterable
from zlib import crc32

from chunkstore.model import Chunk, Hit
from tests.faults.stamped import chunks_of

STEADY = [f"steady-{number:02}.md" for number in range(10)]
"""Appended by every writer, never deleted: a search finds each of them always."""

COUNTED = [f"counted-{number}.md" for number in range(2)]
"""The same, each version with a number that is one more than the number that its writer read."""

EVERYTHING = 4000
"""More chunks than a search can find."""

FIRST = "first"
OWN_FILES = 4
LEAST_CHUNKS = 6
"""Of an upload; from `BATCH_CHUNKS` on it is streamed under an open version."""
BATCH_CHUNKS = 16
SENT_EARLY_FROM = 10
"""Of an upload to a file that is new."""

ABSENT = ""
"""What a file holds that was never appended, or was erased."""
GONE = "gone"
"""What the stamp of a tombstone begins with."""


def own_keys(writer: str) -> list[str]:
    """The files that one writer alone touches, in every way there is."""
    return [f"own-{writer}-{number}.md" for number in range(OWN_FILES)]


def is_own(key: str) -> bool:
    """Whether the key is one of some writer's own."""
    return key.startswith("own-")


def uploaded(key: str, stamp: str) -> list[Chunk]:
    """The chunks that the operation of the stamp uploads."""
    return chunks_of(key, stamp, LEAST_CHUNKS + crc32(stamp.encode()) % 30)


def held(key: str, stamp: str) -> list[str]:
    """The contents that a search finds in a file of which the stamp is active."""
    return [] if stamp == ABSENT or stamp.startswith(GONE) else [c.content for c in uploaded(key, stamp)]


def found(hits: Iterable[Hit]) -> dict[str, list[str]]:
    """The contents by key, in the order of the file."""
    contents: dict[str, list[str]] = {}
    for hit in sorted(hits, key=lambda hit: (hit.key, hit.ordinal)):
        contents.setdefault(hit.key, []).append(hit.content)
    return contents
