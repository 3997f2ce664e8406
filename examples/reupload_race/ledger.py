"""Who did what when, by one clock: from it follows exactly which texts the model was given in vain.

A text is given in vain when a later upload of its file is committed before its vector is there. Whether that
could be known is told by the read: one that began after that commit had returned sees it.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from examples.reupload_race.uploads import stamp_of

now = time.monotonic


class Upload(msgspec.Struct, frozen=True):
    """One upload of a file. `order` grows with every upload of that file, as the database ordered them."""

    stamp: int
    order: int
    committed: float


class Call(msgspec.Struct, frozen=True):
    """One call of the model: when its texts began to be read, were given to it, and came back."""

    worker: int
    read: float
    given: float
    ended: float
    texts: Sequence[str]


class InVain(msgspec.Struct):
    """Texts of replaced uploads, of one kind, and the most that one worker was given of one upload."""

    texts: int = 0
    most: int = 0


class Waste(msgspec.Struct, frozen=True):
    """What the model was given, and what of it in vain, by where the texts were when the next upload came."""

    given: int
    not_read: InVain
    """Not read yet: the read could have known."""
    waiting: InVain
    """Read, but not yet given to the model."""
    in_model: InVain
    """In the model."""


class Ledger:
    """Every upload and every call of the model of one race."""

    def __init__(self) -> None:
        self._uploads: dict[str, list[Upload]] = defaultdict(list)
        self._read: dict[str, float] = {}
        self._calls: list[Call] = []

    def uploaded(self, key: str, stamp: int, order: int) -> None:
        """Notes an upload whose commit has just returned."""
        self._uploads[key].append(Upload(stamp, order, now()))

    def read(self, texts: Iterable[str], began: float) -> None:
        """Notes what a read has found to be needed, and when it began."""
        self._read.update(dict.fromkeys(texts, began))

    def called(self, worker: int, texts: Sequence[str], given: float) -> None:
        """Notes a call of the model that has just returned."""
        read = min(self._read[text] for text in texts)
        self._calls.append(Call(worker, read, given, now(), texts))

    def waste(self) -> Waste:
        """What was given in vain."""
        replaced = self._replaced()
        counted = {kind: Counter[tuple[int, int]]() for kind in ("not_read", "waiting", "in_model")}
        for call in self._calls:
            for stamp in map(stamp_of, call.texts):
                kind = _kind(call, replaced[stamp])
                if kind is not None:
                    counted[kind][stamp, call.worker] += 1
        in_vain = {
            kind: InVain(texts=count.total(), most=max(count.values(), default=0))
            for kind, count in counted.items()
        }
        return Waste(given=sum(len(call.texts) for call in self._calls), **in_vain)

    def _replaced(self) -> dict[int, float]:
        """By upload, when a later one of its file had been committed."""
        replaced: dict[int, float] = {}
        for uploads in self._uploads.values():
            earliest = inf
            for upload in sorted(uploads, key=lambda upload: upload.order, reverse=True):
                replaced[upload.stamp] = earliest
                earliest = min(earliest, upload.committed)
        return replaced


def _kind(call: Call, replaced: float) -> str | None:
    if replaced < call.read:
        return "not_read"
    if replaced < call.given:
        return "waiting"
    return "in_model" if replaced < call.ended else None
