"""What a store holds of a collection, read in one statement, and how it is compared with the model.

Compared are the files, their versions, pins, targets and active versions, every live manifest with its
contents, and of each chunk whether it is embedded or given up.
"""

import msgspec

from chunkstore.model import ChunkId, VersionState
from tests.model.histories.expected import Expected, ExpectedFile, ExpectedVersion, Read
from tests.store.rules.fix_interleave import World

_STATEMENT = """
    SELECT jsonb_agg(to_jsonb(seen))::text
    FROM (
        SELECT f.key, f.partition, f.latest, f.target, a.version AS active,
               ARRAY(
                   SELECT jsonb_build_object(
                       'number', v.version, 'state', v.state, 'tombstone', v.tombstone, 'pinned', v.pinned,
                       'segments', (
                           SELECT coalesce(jsonb_agg(s.chunks ORDER BY l.i), '[]')
                           FROM unnest(v.segments) WITH ORDINALITY AS l (segment, i)
                           JOIN segments s ON s.segment = l.segment
                       )
                   )
                   FROM versions v
                   WHERE v.file = f.file
               ) AS versions,
               ARRAY(
                   SELECT jsonb_build_object(
                       'chunk', c.chunk_id, 'content', c.content, 'letter', d.state,
                       'embedded', e.chunk_id IS NOT NULL
                   )
                   FROM chunks c
                   LEFT JOIN embeddings e ON e.chunk_id = c.chunk_id AND e.model = %(model)s
                   LEFT JOIN dead_letters d ON d.chunk_id = c.chunk_id AND d.model = %(model)s
                   WHERE c.file = f.file
               ) AS chunks
        FROM files f
        LEFT JOIN active_versions a ON a.file = f.file AND a.model = %(model)s
        WHERE f.collection = %(collection)s
          AND f.key IS NOT NULL
    ) AS seen
"""


class SeenVersion(msgspec.Struct, frozen=True):
    """A version as the store has it."""

    number: int
    state: VersionState
    tombstone: bool
    pinned: bool
    segments: list[list[ChunkId]]


class SeenChunk(msgspec.Struct, frozen=True):
    """A chunk as the store has it."""

    chunk: ChunkId
    content: str
    embedded: bool
    letter: str | None


class SeenFile(msgspec.Struct, frozen=True):
    """A file as the store has it."""

    key: str
    partition: int
    latest: int
    target: int
    active: int | None
    versions: list[SeenVersion]
    chunks: list[SeenChunk]


async def observe(world: World) -> dict[str, SeenFile]:
    """The collection's files by key."""
    text = await world.value(_STATEMENT, model=world.model, collection=world.number)
    return {} if text is None else {file.key: file for file in msgspec.json.decode(text, type=list[SeenFile])}


async def read(world: World, key: str) -> list[Read]:
    """What the public API tells of a file's versions, with the contents of those that are committed."""
    return [
        (
            version.number,
            version.state,
            version.pinned,
            version.target,
            version.active,
            version.discarded if version.state in ("open", "committed") else 0,
            [chunk.content async for chunk in world.collection.chunks(key, version.number)]
            if version.state == "committed"
            else [],
        )
        for version in await world.collection.history(key)
    ]


def compare(expected: Expected, seen: dict[str, SeenFile], *, swept: bool) -> None:
    """Asserts that both are the same; lets chunks be gone that nothing names where a sweep went (`swept`)."""
    assert seen.keys() == expected.files.keys()
    for key, file in expected.files.items():
        _compare(file, seen[key], swept=swept)


def _compare(file: ExpectedFile, seen: SeenFile, *, swept: bool) -> None:
    what = f"file {file.key}"
    if file.may_be_active is not None and seen.active == file.may_be_active:
        file.active = seen.active
    file.may_be_active = None
    assert (seen.latest, seen.target) == (file.latest, file.target), f"{what}: latest and target"
    assert seen.active == file.active, f"{what}: the active version"
    assert seen.partition == file.partition
    assert {version.number for version in seen.versions} == file.versions.keys(), f"{what}: its versions"
    contents = {chunk.chunk: chunk.content for chunk in seen.chunks}
    for version in seen.versions:
        _compare_version(
            file.versions[version.number], version, contents, f"{what}, version {version.number}"
        )
    _compare_chunks(file, seen, contents, swept=swept)


def _compare_version(
    expected: ExpectedVersion, seen: SeenVersion, contents: dict[ChunkId, str], what: str
) -> None:
    assert seen.state == expected.state, f"{what}: its state"
    assert (seen.tombstone, seen.pinned) == (expected.tombstone, expected.pinned), what
    if not expected.is_live:
        return
    known = len(expected.segments)
    assert seen.segments[:known] == expected.segments, f"{what}: its manifest changed"
    gone = {chunk for segment in seen.segments for chunk in segment} - contents.keys()
    assert not gone, f"{what}: its manifest names a chunk that is gone"
    texts = [contents[chunk] for segment in seen.segments for chunk in segment]
    written = expected.texts[: len(texts)] if expected.state == "open" else expected.texts
    assert texts == written, f"{what}: it does not read as it was written"
    expected.segments = seen.segments


def _compare_chunks(file: ExpectedFile, seen: SeenFile, contents: dict[ChunkId, str], *, swept: bool) -> None:
    what = f"file {file.key}"
    new, gone = contents.keys() - file.contents.keys(), file.contents.keys() - contents.keys()
    assert new <= file.named(), f"{what}: chunks that no version names"
    assert swept or not gone, f"{what}: chunks are gone"
    assert gone.isdisjoint(file.named()), f"{what}: chunks are gone that a version names"
    assert contents.items() >= {c: t for c, t in file.contents.items() if c not in gone}.items(), what
    file.contents = contents
    file.embedded -= gone
    file.letters = {chunk: state for chunk, state in file.letters.items() if chunk not in gone}
    assert {chunk.chunk for chunk in seen.chunks if chunk.embedded} == file.embedded, f"{what}: embeddings"
    letters = {chunk.chunk: chunk.letter for chunk in seen.chunks if chunk.letter is not None}
    assert letters == file.letters, f"{what}: dead letters"
