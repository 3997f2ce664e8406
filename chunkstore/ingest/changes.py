"""Decides from a file's size, time and hash, in that order, whether it has to be read again."""

from typing import Literal

import msgspec

from chunkstore.errors import InvalidInput
from chunkstore.ingest.stamps import Stamp

Verdict = Literal["unchanged", "compare", "changed"]

NAMES = ("size", "mtime", "hash")


class Checks(msgspec.Struct, frozen=True):
    """What is looked at. Another size is a change; the same time is none; else the hash of the content says.

    Without the hash, another time is a change; with the size alone, nothing but another size is. With
    nothing to look at, every file is read.
    """

    size: bool = True
    mtime: bool = True
    hash: bool = True

    @classmethod
    def named(cls, names: str) -> "Checks":
        """The checks of a list like `size,mtime,hash`; `none` for none. Raises InvalidInput."""
        given = [] if names.strip() == "none" else [name.strip() for name in names.split(",")]
        if not set(given) <= set(NAMES):
            raise InvalidInput("check", names, f"{', '.join(NAMES)} in a list with commas, or none")
        return cls(*(name in given for name in NAMES))

    def verdict(self, stamp: Stamp | None, size: int, mtime_ns: int) -> Verdict:
        """What is known of a file without reading it; `compare`: its hash will tell."""
        if stamp is None or (self.size and size != stamp.size):
            return "changed"
        if self.mtime and mtime_ns == stamp.mtime_ns:
            return "unchanged"
        if self.hash:
            return "compare"
        return "unchanged" if self.size and not self.mtime else "changed"
