"""The consistency checker of searches: it knows by the content what a search may find, and counts its checks.

It finds versions that are mixed, files that vanished, content that was not sealed so, and an older version
after a newer one.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import anyio
import msgspec

from chunkstore.collection import Collection
from chunkstore.model import Hit
from chunkstore.retries import persistently
from tests.faults.models import MODEL
from tests.faults.stamped import KEYS, broken

EVERYTHING = 2000


class Checker(msgspec.Struct):
    """What one reader saw, search after search, and what of it must not be."""

    keys: Sequence[str] | None = tuple(KEYS)
    """The files that every search has to find, and no others; with None any, each from the first time on."""
    deleted: set[str] = set()
    """Files that may vanish."""
    unsealed: set[str] = set()
    """Files that need not be whole: their chunks were discarded, or bear no seal."""
    searches: int = 0
    files: int = 0
    """Files looked at, one in each search."""
    faults: list[str] = []
    newest: dict[str, int] = {}
    """The version of each file that the last search saw."""
    switches: int = 0
    """How often a search saw a newer version than the one before."""

    def check(self, hits: Iterable[Hit]) -> None:
        """Takes the hits of a search that found everything there is."""
        found = list(hits)
        versions = {hit.key: hit.version for hit in found}
        seen = {*versions} | self.newest.keys() - self.deleted
        self.searches += 1
        self.faults += broken(found, sorted(seen) if self.keys is None else self.keys, self.unsealed)
        self.files += len(versions)
        for key, version in versions.items():
            before = self.newest.get(key, version)
            if version < before:
                self.faults.append(f"{key}: version {version} after version {before}")
            self.switches += version > before
        self.newest |= versions


class Reader:
    """Searches for everything again and again, also while the server is away, and checks what it gets."""

    def __init__(self, collection: Collection, keys: Sequence[str] | None = KEYS) -> None:
        self._collection = collection
        (self._query,) = MODEL.embed(["file chunk upload"])
        self.checker = Checker(keys)

    async def look(self, stop: anyio.Event | None = None) -> None:
        """One search, checked."""
        self.checker.check(
            await persistently(lambda: self._collection.search(self._query, k=EVERYTHING), stop)
        )

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await self.look()


def write_down(checker: Checker, path: Path) -> None:
    """Leaves the checker's findings in a file, whole at every instant."""
    beside = path.with_suffix(".new")
    beside.write_bytes(msgspec.json.encode(checker))
    beside.replace(path)


def read_back(path: Path) -> Checker:
    """The findings that a process left in a file; those of nobody before its first search."""
    if not path.exists():
        return Checker()
    return msgspec.json.decode(path.read_bytes(), type=Checker)
