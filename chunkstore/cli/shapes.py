"""What `--json` prints where no value of the store has that shape already."""

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from chunkstore.catalog import CollectionRow
from chunkstore.dead_letters import Content, FoundDeadLetter
from chunkstore.model import Hit, Metadata

if TYPE_CHECKING:
    from chunkstore.ingest.pipeline import IngestReport
    from chunkstore.models.kinds import Kind
    from projections.verify import VerifyReport


class ListedCollection(msgspec.Struct, frozen=True):
    """A collection with its models, the serving one first."""

    name: str
    models: list[str]
    keep_last: int
    keep_for: timedelta | None
    headings: bool

    @classmethod
    def of(cls, row: CollectionRow, models: list[str]) -> "ListedCollection":
        """The collection of that row."""
        return cls(row.name, models, row.keep_last, row.keep_for, row.headings)


class ListedBackEnd(msgspec.Struct, frozen=True):
    """What can run a model, whether it is installed, and what brings it."""

    runs: str
    installed: bool
    missing: list[str]
    install: str
    also: str


class ListedModel(msgspec.Struct, frozen=True):
    """A kind of model that a spec can name."""

    spec: str
    what: str
    usable: bool
    """Whether something that runs it is installed."""
    back_ends: list[ListedBackEnd]

    @classmethod
    def of(cls, kind: "Kind") -> "ListedModel":
        """The kind, as it stands on this machine."""
        ends = [
            ListedBackEnd(end.runs, not end.missing, end.missing, end.install, end.also)
            for end in kind.back_ends
        ]
        return cls(kind.spec, kind.what, any(end.installed for end in ends), ends)


class Erased(msgspec.Struct, frozen=True):
    """A file that is gone with all of its versions."""

    collection: str
    key: str
    versions: int


class Owned(msgspec.Struct, frozen=True):
    """A collection, and the role whose members alone see it; None for nobody but the owner."""

    collection: str
    tenant: str | None


class SearchResult(msgspec.Struct, frozen=True):
    """What a search found, best first."""

    query: str
    collection: str
    exact: bool
    hits: list[Hit]


class ShownDeadLetter(FoundDeadLetter, frozen=True, kw_only=True):
    """A dead letter with the chunk that it is about; None where that is gone."""

    content: str | None
    metadata: Metadata | None

    @classmethod
    def of(cls, letter: FoundDeadLetter, chunk: Content | None) -> "ShownDeadLetter":
        """The dead letter with its chunk."""
        text, metadata = (None, None) if chunk is None else (chunk.content, chunk.metadata)
        return cls(**msgspec.structs.asdict(letter), content=text, metadata=metadata)


class SettledDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter, and what became of it: `retried`, `discarded`, or why not."""

    chunk_id: int
    collection: str
    key: str
    model: str
    result: str

    @classmethod
    def of(cls, letter: FoundDeadLetter, result: str) -> "SettledDeadLetter":
        """The dead letter with the result."""
        return cls(letter.chunk_id, letter.collection, letter.key, letter.model, result)


class FailedFile(msgspec.Struct, frozen=True):
    """A path that was not ingested, and why."""

    path: str
    reason: str


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What an ingestion came to, or with `dry_run` would come to: files, then chunks."""

    collection: str
    dry_run: bool
    added: int
    updated: int
    unchanged: int
    outdated: int
    """Files that have not changed, left as an earlier chunker or parser made them."""
    deleted: int
    failed: list[FailedFile]
    left_out: dict[str, int]
    """How many files and folders were passed over in the folders given, by the reason."""
    without_text: int
    """Files that are there and hold no text, so that no search finds them; 0 with `dry_run`."""
    chunks_added: int
    chunks_reused: int
    embedded: int
    """Chunks that the models embedded in this command."""
    waiting: int
    """Embeddings that the collection's files still lack until searches see what was ingested."""

    @classmethod
    def of(
        cls, collection: str, report: "IngestReport", *, waiting: int = 0, dry_run: bool = False
    ) -> "Ingested":
        """The report of the pipeline, with what became of the chunks."""
        return cls(
            collection=collection,
            dry_run=dry_run,
            added=report.added,
            updated=report.updated,
            unchanged=report.unchanged,
            outdated=report.outdated,
            deleted=report.deleted,
            failed=[FailedFile(path, reason) for path, reason in report.failed],
            left_out={**report.left_out},
            without_text=report.without_text,
            chunks_added=report.chunks_added,
            chunks_reused=report.chunks_reused,
            embedded=report.embedded or 0,
            waiting=waiting,
        )


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` came to."""

    embedded: int
    given_up: int
    """Chunks that became dead letters."""
    switched: int
    collected: int
    """Versions."""
    removed: int
    """Chunks that only collected versions named."""


class VerifiedCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check of `verify`, with the first of the rows that it found."""

    invariant: int
    name: str
    description: str
    ok: bool
    count: int
    rows: list[msgspec.Raw]
    pending: bool
    skipped: str | None


class Verified(msgspec.Struct, frozen=True):
    """The verdict, and every check."""

    ok: bool
    checks: list[VerifiedCheck]

    @classmethod
    def of(cls, report: "VerifyReport") -> "Verified":
        """The report with its verdicts spelled out."""
        checks = [
            VerifiedCheck(
                invariant=check.invariant,
                name=check.name,
                description=check.description,
                ok=check.ok,
                count=check.count,
                rows=[msgspec.Raw(violation.row.encode()) for violation in check.violations],
                pending=check.pending,
                skipped=check.skipped,
            )
            for check in report.checks
        ]
        return cls(report.ok, checks)
