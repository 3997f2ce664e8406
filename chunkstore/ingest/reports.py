"""What an ingestion tells its caller: each file's outcome while it runs, and the sums at its end."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from chunkstore.ingest.sources import LeftOut, Problem

Outcome = Literal["added", "updated", "unchanged", "outdated", "deleted", "failed"]


class Progress(msgspec.Struct, frozen=True):
    """One file is done: the `done`-th of `total`."""

    done: int
    total: int
    key: str
    outcome: Outcome


class Outdated(msgspec.Struct, frozen=True):
    """How many files have not changed themselves, but would be cut or read in another way today."""

    by_chunker: int = 0
    by_parser: int = 0
    """Those whose parser changed, the chunker's aside or not."""

    @property
    def files(self) -> int:
        """How many they are together."""
        return self.by_chunker + self.by_parser

    def __str__(self) -> str:
        """As a person reads it: `chunker changed: 312 files would be chunked anew`."""
        parts = [
            f"{what} changed: {'1 file' if count == 1 else f'{count:,} files'} would be chunked anew"
            for what, count in (("chunker", self.by_chunker), ("parser", self.by_parser))
            if count
        ]
        return "; ".join(parts)


class IngestReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an ingestion did: files by outcome, and the chunks of the versions that it made or found."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    outdated: int = 0
    """Files left as an earlier chunker or parser made them."""
    deleted: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    """Each path that could not be ingested, with the reason."""
    left_out: Mapping[LeftOut, int] = {}
    """How many files and folders were passed over in the folders, by the reason."""
    without_text: int = 0
    """Files that are there and hold no text: a version without chunks, which no search finds."""
    chunks_added: int = 0
    chunks_reused: int = 0
    embedded: int | None = None
    """Chunks that a model embedded for it, where the caller waited for that."""

    def failures(self) -> dict[str, list[str]]:
        """The paths that failed, by reason: in an unselected folder thousands can fail alike."""
        by_reason: dict[str, list[str]] = {}
        for path, reason in self.failed:
            by_reason.setdefault(reason, []).append(path)
        return by_reason


class Tally:
    """Counts outcomes as they come, and tells of each."""

    def __init__(self, total: int, on_progress: Callable[[Progress], None] | None) -> None:
        self.total = total
        self.without_text = 0
        self.chunks_added = 0
        self.chunks_reused = 0
        self._counts: Counter[Outcome] = Counter()
        self._failed: list[tuple[str, str]] = []
        self._on_progress = on_progress

    def done(self, key: str, outcome: Outcome) -> None:
        """Counts a file that is done."""
        self._counts[outcome] += 1
        if self._on_progress is not None:
            self._on_progress(Progress(self._counts.total(), self.total, key, outcome))

    def failed(self, key: str, path: str, reason: str) -> None:
        """Counts a file that could not be ingested, and why."""
        self._failed.append((path, reason))
        self.done(key, "failed")

    def report(self, problems: Iterable[Problem], left_out: Mapping[LeftOut, int]) -> IngestReport:
        """The sums; `problems` are paths that led to no file."""
        failed = [*((problem.path, problem.reason) for problem in problems), *self._failed]
        return IngestReport(
            added=self._counts["added"],
            updated=self._counts["updated"],
            unchanged=self._counts["unchanged"],
            outdated=self._counts["outdated"],
            deleted=self._counts["deleted"],
            failed=tuple(sorted((_printable(path), reason) for path, reason in failed)),
            left_out=left_out,
            without_text=self.without_text,
            chunks_added=self.chunks_added,
            chunks_reused=self.chunks_reused,
        )


def _printable(path: str) -> str:
    """The path with the bytes of its name that are no UTF-8 spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")
