"""The events of the log: one tagged struct a type, immutable once committed (invariant 2).

An event holds numbers only. Text, vectors, keys, hashes and error messages live in tables that can be
collected or erased, so the log can stay for ever (rule 14).
"""

from typing import Any, ClassVar

import msgspec

from chunkstore.model import ChunkId, FileId, ModelId


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event may name: a file and one of its versions."""

    chunk_offsets: ClassVar[bool] = False

    file: FileId | None = None
    version: int | None = None


class ChunksAppended(Event, frozen=True, kw_only=True, tag="chunks_appended"):
    """A run of 1 to 1,024 chunks of one version that may need an embedding; covers as many offsets."""

    chunk_offsets: ClassVar[bool] = True

    chunks: tuple[ChunkId, ...]


class VersionCommitted(Event, frozen=True, kw_only=True, tag="version_committed"):
    """The version is whole; `target` says whether it became the file's target."""

    target: bool
    tombstone: bool = False
    replaced: int | None = None
    """The target until then, where a rollback held it."""


class VersionAbandoned(Event, frozen=True, kw_only=True, tag="version_abandoned"):
    """An open version passed its deadline, or turned out unchanged: its writer is fenced off."""


class ChunksEmbedded(Event, frozen=True, kw_only=True, tag="chunks_embedded"):
    """One batch of new embeddings of one model; `files` own its chunks, or others of the same range."""

    model: ModelId
    chunks: tuple[ChunkId, ...]
    files: tuple[FileId, ...]


class EmbeddingFailed(Event, frozen=True, kw_only=True, tag="embedding_failed"):
    """A chunk was given up; the reason is in its dead letter."""

    model: ModelId
    chunk: ChunkId


class DeadLetterRetried(Event, frozen=True, kw_only=True, tag="dead_letter_retried"):
    """A dead letter was taken back; the chunk is logged again."""

    model: ModelId
    chunk: ChunkId


class DeadLetterDiscarded(Event, frozen=True, kw_only=True, tag="dead_letter_discarded"):
    """The chunk counts as done: versions activate without it (rule 16)."""

    model: ModelId
    chunk: ChunkId


class VersionActivated(Event, frozen=True, kw_only=True, tag="version_activated"):
    """Searches of the model see this version from here on; `previous` is what they saw before."""

    model: ModelId
    previous: int | None = None


class VersionCollected(Event, frozen=True, kw_only=True, tag="version_collected"):
    """The collector decided on the version; its payload is swept after this (rule 19)."""


class Pinned(Event, frozen=True, kw_only=True, tag="pinned"):
    """The version is kept whatever the retention says."""


class Unpinned(Event, frozen=True, kw_only=True, tag="unpinned"):
    """The version is subject to the retention again."""


class TargetChanged(Event, frozen=True, kw_only=True, tag="target_changed"):
    """A rollback: the version should become active, until the next commit."""

    previous: int | None = None


class FileErased(Event, frozen=True, kw_only=True, tag="file_erased"):
    """Nothing of the file is left but its number."""


class ModelAdded(Event, frozen=True, kw_only=True, tag="model_added"):
    """The collection is embedded by this model too, from here on."""

    collection: int
    model: ModelId


class FileBackfilled(Event, frozen=True, kw_only=True, tag="file_backfilled"):
    """What the file's target lacked of a model that was added later has been logged."""

    model: ModelId


class ServingModelChanged(Event, frozen=True, kw_only=True, tag="serving_model_changed"):
    """Searches that name no model use this one from here on."""

    collection: int
    model: ModelId


class Unknown(Event, frozen=True, kw_only=True, tag="unknown"):
    """An event of a newer chunkstore, or one that cannot be read: kept, skipped, never an error."""

    name: str


KNOWN: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        ChunksAppended,
        VersionCommitted,
        VersionAbandoned,
        ChunksEmbedded,
        EmbeddingFailed,
        DeadLetterRetried,
        DeadLetterDiscarded,
        VersionActivated,
        VersionCollected,
        Pinned,
        Unpinned,
        TargetChanged,
        FileErased,
        ModelAdded,
        FileBackfilled,
        ServingModelChanged,
    )
}


def name_of(event: Event) -> str:
    """The event's type as the log's column `type` holds it."""
    return str(event.__struct_config__.tag)


def data_of(event: Event) -> dict[str, Any]:
    """What the event holds beside the log's own columns, for the column `data`."""
    columns = {"type", "file", "version", "chunks"}
    return {name: value for name, value in msgspec.to_builtins(event).items() if name not in columns}


def decode(
    name: str,
    file: int | None,
    version: int | None,
    chunks: list[int] | None,
    data: Any,
) -> Event:
    """The event of one row of the log.

    A type that this code does not know becomes `Unknown`, and so does a row without its type's shape, which
    no code of ours wrote: one row must not stop whoever follows the log. Fields that a newer shape added are
    dropped, fields that an older shape lacks take their defaults.
    """
    unknown = Unknown(file=_file(file), version=version, name=name)
    kind = KNOWN.get(name)
    if kind is None or not isinstance(data, dict | None):
        return unknown
    fields: dict[str, Any] = {**(data or {}), "file": file, "version": version}
    if chunks is not None:
        fields["chunks"] = chunks
    fields["type"] = name
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        return unknown


def _file(file: int | None) -> FileId | None:
    return None if file is None else FileId(file)
