"""The model in memory: what the store must hold and what a search must find after each step.

It knows versions, targets, pins, what is embedded and what was given up, and raises the error that the store
must raise. What is the store's own choice is taken from it: how it numbers chunks, which ones it uses
again, and where it cuts segments.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chunkstore.errors import (
    IdempotencyKeyReused,
    StaleVersion,
    UnknownDeadLetter,
    UnknownFile,
    UnknownVersion,
    VersionFenced,
)
from chunkstore.model import ChunkId, VersionState

Found = tuple[str, int, int, str]
"""What a search must find of a chunk: key, version, ordinal, content."""


Read = tuple[int, VersionState, bool, bool, bool, int, list[str]]
"""What readers are given of a version: number, state, pinned, target, active, discarded, contents."""


@dataclass
class ExpectedVersion:
    """One version: the texts that were written, and the segments of chunks that the store made of them."""

    texts: list[str]
    state: VersionState
    tombstone: bool = False
    pinned: bool = False
    segments: list[list[ChunkId]] = field(default_factory=list[list[ChunkId]])

    @property
    def chunks(self) -> list[ChunkId]:
        return [chunk for segment in self.segments for chunk in segment]

    @property
    def is_live(self) -> bool:
        return self.state in ("open", "committed")


@dataclass(frozen=True)
class Answer:
    """What an append must return."""

    number: int
    unchanged: bool = False
    replaced_rollback_to: int | None = None


@dataclass
class ExpectedFile:
    """One file from its first version to its erasure."""

    key: str
    partition: int
    versions: dict[int, ExpectedVersion] = field(default_factory=dict[int, ExpectedVersion])
    latest: int = 0
    target: int = 0
    active: int | None = None
    may_be_active: int | None = None
    """The target, where a projector may have switched to it: it read a part of the events."""
    contents: dict[ChunkId, str] = field(default_factory=dict[ChunkId, str])
    embedded: set[ChunkId] = field(default_factory=set[ChunkId])
    letters: dict[ChunkId, str] = field(default_factory=dict[ChunkId, str])
    tries: dict[str, tuple[int, list[str]]] = field(default_factory=dict[str, tuple[int, list[str]]])
    erased: bool = False

    # --- versions -------------------------------------------------------------------------------

    def append(self, texts: list[str], *, expected: int | None = None, try_key: str | None = None) -> Answer:
        if try_key in self.tries:
            number, first = self.tries[try_key]
            if first != texts:
                raise IdempotencyKeyReused
            return Answer(number, unchanged=True)
        if expected is not None and expected != self.latest:
            raise StaleVersion
        answer = self._settled(texts) or self._committed(self.open(texts))
        if try_key is not None:
            self.tries[try_key] = (answer.number, texts)
        return answer

    def delete(self) -> Answer:
        return self._settled([], tombstone=True) or self._committed(self.open([], tombstone=True))

    def open(self, texts: Iterable[str] = (), *, tombstone: bool = False) -> int:
        number = len(self.versions) + 1
        self.versions[number] = ExpectedVersion([*texts], "open", tombstone)
        return number

    def extend(self, number: int, texts: Sequence[str]) -> None:
        self._open(number).texts += texts

    def commit(self, number: int) -> Answer:
        version = self._open(number)
        settled = self._settled(version.texts)
        if settled is None:
            return self._committed(number)
        version.state = "abandoned"
        return settled

    def abandon(self, number: int) -> None:
        if not self.erased and self.versions[number].state == "open":
            self.versions[number].state = "abandoned"

    def roll_back(self, number: int) -> None:
        self.committed(number)
        self.target = number

    def history(self) -> list[Read]:
        """What readers are given of each version."""
        return [
            (
                number,
                version.state,
                version.pinned,
                number == self.target,
                number == self.active,
                self.discarded(number) if version.is_live else 0,
                version.texts if version.state == "committed" else [],
            )
            for number, version in sorted(self.versions.items())
        ]

    def set_pinned(self, number: int, *, pinned: bool) -> None:
        self.committed(number).pinned = pinned

    def discarded(self, number: int) -> int:
        """How many of its chunks are missing from search because they were discarded."""
        return sum(self.letters.get(chunk) == "discarded" for chunk in set(self.versions[number].chunks))

    def committed(self, number: int) -> ExpectedVersion:
        version = self.versions.get(number)
        if version is None or version.state != "committed":
            raise UnknownVersion
        return version

    def _open(self, number: int) -> ExpectedVersion:
        if self.erased or self.versions[number].state != "open":
            raise VersionFenced
        return self.versions[number]

    def _settled(self, texts: Sequence[str], *, tombstone: bool = False) -> Answer | None:
        latest = self.versions.get(self.latest)
        if latest is None or self.target != self.latest:
            return None
        if (latest.tombstone, latest.texts) != (tombstone, texts):
            return None
        return Answer(self.latest, unchanged=True)

    def _committed(self, number: int) -> Answer:
        self.versions[number].state = "committed"
        if number < self.latest:
            return Answer(number)  # superseded at birth
        replaced = self.target if self.target != self.latest else None
        self.latest = self.target = number
        return Answer(number, replaced_rollback_to=replaced)

    # --- chunks ---------------------------------------------------------------------------------

    def named(self, *, by_needed: bool = False) -> set[ChunkId]:
        """The chunks of every live version, or only of those that may still become searchable."""
        return {
            chunk
            for number, version in self.versions.items()
            if version.is_live and not (by_needed and version.state != "open" and number != self.target)
            for chunk in version.chunks
        }

    def is_complete(self, number: int) -> bool:
        """Whether it lacks nothing; a segment that is active already is complete (rule 16)."""
        active = [] if self.active is None else self.versions[self.active].segments
        return all(
            chunk in self.embedded or self.letters.get(chunk) == "discarded"
            for segment in self.versions[number].segments
            if segment not in active
            for chunk in segment
        )

    def due(self, keep_last: int) -> list[int]:
        """The versions that no retention, pin, target or search keeps."""
        committed = [number for number, version in self.versions.items() if version.state == "committed"]
        return [
            number
            for number in sorted(committed)[:-keep_last]
            if not self.versions[number].pinned and number not in (self.latest, self.target, self.active)
        ]

    def searchable(self) -> list[Found]:
        """The chunks of the active version that are embedded, each where it stands first."""
        if self.active is None:
            return []
        chunks = self.versions[self.active].chunks
        return [
            (self.key, self.active, chunks.index(chunk), self.contents[chunk])
            for chunk in set(chunks) & self.embedded
        ]


class Expected:
    """The files of one collection by key."""

    def __init__(self, partitions: dict[str, int], keep_last: int) -> None:
        self.partitions = partitions
        self.keep_last = keep_last
        self.files: dict[str, ExpectedFile] = {}

    def get_or_create(self, key: str) -> ExpectedFile:
        """The file of the key; a new one is the caller's to `keep`."""
        return self.files.get(key) or ExpectedFile(key, self.partitions[key])

    def append(self, key: str, texts: list[str], **options: object) -> Answer:
        file = self.get_or_create(key)
        answer = file.append(texts, **options)  # pyright: ignore[reportArgumentType]
        self.files[key] = file
        return answer

    def open(self, key: str) -> tuple[ExpectedFile, int]:
        file = self.files.setdefault(key, self.get_or_create(key))
        return file, file.open()

    def file(self, key: str) -> ExpectedFile:
        """The file, if it has a version that was committed."""
        if key not in self.files or self.files[key].latest == 0:
            raise UnknownFile
        return self.files[key]

    def erase(self, key: str) -> None:
        if key not in self.files:
            raise UnknownFile
        self.files.pop(key).erased = True

    def collect(self) -> None:
        for file in self.files.values():
            for number in file.due(self.keep_last):
                file.versions[number].state = "collected"

    def activate(self, partition: int, *, whole: bool = True) -> None:
        """Switches what is complete; a projector that read a part of the events (not `whole`) may."""
        for file in self.files.values():
            if file.partition != partition or file.target == 0 or not file.is_complete(file.target):
                continue
            if whole:
                file.active = file.target
            else:
                file.may_be_active = file.target

    # --- what consumers do ----------------------------------------------------------------------

    def holder(self, chunk: ChunkId) -> ExpectedFile | None:
        """The file that has the chunk; None where it is gone."""
        return next((file for file in self.files.values() if chunk in file.contents), None)

    def embed(self, chunks: Iterable[ChunkId]) -> list[ChunkId]:
        """Stores vectors; returns the chunks that are there and had none."""
        new: list[ChunkId] = []
        for chunk in chunks:
            file = self.holder(chunk)
            if file is not None and chunk not in file.embedded:
                file.embedded.add(chunk)
                file.letters.pop(chunk, None)
                new.append(chunk)
        return sorted(new)

    def give_up(self, chunk: ChunkId) -> bool:
        file = self.holder(chunk)
        if file is None or chunk in file.embedded:
            return False
        file.letters.setdefault(chunk, "open")
        return True

    def letters(self) -> list[ChunkId]:
        return sorted(chunk for file in self.files.values() for chunk in file.letters)

    def retry(self, chunk: ChunkId) -> None:
        del self._with_letter(chunk).letters[chunk]

    def discard(self, chunk: ChunkId) -> None:
        self._with_letter(chunk).letters[chunk] = "discarded"

    def _with_letter(self, chunk: ChunkId) -> ExpectedFile:
        file = self.holder(chunk)
        if file is None or chunk not in file.letters:
            raise UnknownDeadLetter
        return file

    def searchable(self) -> list[Found]:
        return sorted(found for file in self.files.values() for found in file.searchable())
