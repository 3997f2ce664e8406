"""Appending: atomic, deduplicated, the same whether at once or streamed, in bounded memory."""

import random
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence

import anyio
import msgspec
import pytest

from chunkstore import append as appending
from chunkstore import batches, manifests, versions
from chunkstore import chunks as payload
from chunkstore.collection import Collection
from chunkstore.errors import InvalidInput, StaleVersion, UnknownFile
from chunkstore.model import Chunk, Place, StoredChunk
from chunkstore.store import ChunkStore
from projections.collector import collect
from projections.verify import verify


async def value(store: ChunkStore, statement: str) -> object:
    """The first column of the first row."""
    async with store.database.transaction() as conn:
        cursor = await conn.execute(statement.encode())
        row = await cursor.fetchone()
        assert row is not None
        return row[0]


async def stored(collection: Collection, key: str, version: int | None = None) -> list[StoredChunk]:
    return [chunk async for chunk in collection.chunks(key, version)]


async def read(collection: Collection, key: str, version: int | None = None) -> list[Chunk]:
    """The version as it was given."""
    return [
        Chunk(chunk.content, chunk.metadata, chunk.place) for chunk in await stored(collection, key, version)
    ]


async def live_keys(collection: Collection) -> list[str]:
    keys = collection.keys()
    return [key async for key in keys]


def lines(*contents: str) -> list[Chunk]:
    """Chunks of a text of one content a line, with their places."""
    chunks: list[Chunk] = []
    start = 0
    for number, content in enumerate(contents):
        place = Place(start, start + len(content), number // 40 + 1, number + 1)
        chunks.append(Chunk(content, {"kind": "line"}, place))
        start += len(content) + 1
    return chunks


def words(count: int) -> list[str]:
    return [f"word {i}" for i in range(count)]


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets versions of more than 600 chunks be streamed."""
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 600)


# --- what is read is what was appended ------------------------------------------------------------


async def test_a_version_reads_as_it_was_appended(collection: Collection) -> None:
    chunks = [
        Chunk("first", {"headings": ["A", "B"], "n": 1, "deep": {"x": [None, True, 1.5]}}, Place(0, 5, 1, 1)),
        Chunk("no place"),
        Chunk("only a page", {}, Place(page=7)),
        Chunk("ünïcödé \U0001f600", {"é": "ß"}, Place(start=100)),
    ]
    version = await collection.append("doc", chunks)
    assert (version.number, version.chunks, version.added, version.reused) == (1, 4, 4, 0)
    assert await read(collection, "doc") == chunks
    assert [chunk.ordinal for chunk in await stored(collection, "doc")] == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(4))
async def test_every_version_of_a_long_history_reads_as_it_was_appended(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(manifests, "SEGMENT_MIN", 4)
    monkeypatch.setattr(manifests, "SEGMENT_MAX", 16)
    monkeypatch.setattr(manifests, "_BOUNDARY_MASK", 3)
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 25)
    dice = random.Random(seed)
    texts = words(20)
    history: list[list[Chunk]] = []
    for _ in range(15):
        at = dice.randrange(len(texts) + 1)
        match dice.choice(["insert", "delete", "move", "repeat", "replace", "swap ends"]):
            case "insert":
                texts[at:at] = [f"new {dice.random()}" for _ in range(dice.randrange(1, 12))]
            case "delete":
                del texts[at : at + dice.randrange(1, 6)]
            case "move":
                moved = texts[at : at + 5]
                del texts[at : at + 5]
                texts[:0] = moved
            case "repeat":
                texts[at:at] = texts[: dice.randrange(1, 9)]
            case "replace":
                texts[at : at + 1] = [f"other {dice.random()}"]
            case _:
                texts = texts[::-1]
        texts = texts or ["left"]
        chunks = lines(*texts)
        version = await collection.append("doc", chunks)
        assert version.chunks == len(chunks) == version.added + version.reused
        if version.unchanged:
            assert chunks == history[-1]
        else:
            history.append(chunks)
        assert await read(collection, "doc") == chunks
    kept = [version.number for version in await collection.history("doc") if version.state == "committed"]
    for number, chunks in zip(kept, history, strict=True):
        assert await read(collection, "doc", number) == chunks


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "async generator"])
async def test_chunks_come_from_any_iterable(collection: Collection, kind: str) -> None:
    chunks = lines("one", "two", "three")

    async def arriving() -> AsyncIterator[Chunk]:
        for chunk in chunks:
            await anyio.lowlevel.checkpoint()
            yield chunk

    sources = {
        "list": chunks,
        "tuple": tuple(chunks),
        "generator": (chunk for chunk in chunks),
        "async generator": arriving(),
    }
    await collection.append("doc", sources[kind])
    assert await read(collection, "doc") == chunks


# --- many chunks of a file that is new ------------------------------------------------------------

MANY = 2500


async def test_duplicates_among_many_are_stored_once(store: ChunkStore, collection: Collection) -> None:
    chunks = lines(*words(MANY), *words(MANY))
    version = await collection.append("doc", chunks)
    assert (version.chunks, version.added, version.reused) == (2 * MANY, MANY, MANY)
    assert await value(store, "SELECT count(*) FROM chunks") == MANY
    assert await read(collection, "doc") == chunks
    assert (await collection.append("doc", chunks)).unchanged


async def test_a_bad_chunk_behind_many_leaves_nothing(store: ChunkStore, collection: Collection) -> None:
    with pytest.raises(InvalidInput, match=rf"chunks\[{MANY}\]\.content"):
        await collection.append("doc", [*lines(*words(MANY)), Chunk("")])
    with pytest.raises(InvalidInput, match=rf"chunks\[{MANY}\]: "):
        await collection.append("doc", [*lines(*words(MANY)), "text"])  # pyright: ignore[reportArgumentType]
    for table in ("files", "chunks", "segments", "events", "versions"):
        assert await value(store, f"SELECT count(*) FROM {table} WHERE file IS NOT NULL") == 0, table


async def test_an_append_of_many_that_is_cancelled_leaves_nothing(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = payload.prepare
    with anyio.CancelScope() as scope, monkeypatch.context() as patch:

        def cancelled_half_way(chunk: Chunk, hashing: payload.Hashing, *, position: int) -> payload.Prepared:
            if position == MANY // 2:
                scope.cancel()
            return prepare(chunk, hashing, position=position)

        patch.setattr(payload, "prepare", cancelled_half_way)
        await collection.append("doc", lines(*words(MANY)))
    assert scope.cancelled_caught
    assert await value(store, "SELECT count(*) FROM chunks") == 0
    assert (await collection.append("doc", lines(*words(MANY)))).added == MANY


async def test_an_append_of_many_that_comes_second_finds_what_the_first_stored(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look without a lock says that the file is new; under its lock it is not any more."""
    await collection.append("doc", lines(*words(MANY)))

    async def outdated(*_: object) -> bool:
        return True

    monkeypatch.setattr(versions, "is_new", outdated)
    version = await collection.append("doc", lines(*words(MANY), "behind"))
    assert (version.number, version.added, version.reused) == (2, 1, MANY)
    assert await value(store, "SELECT count(*) FROM chunks") == MANY + 1


async def test_an_append_of_many_keeps_what_the_caller_expects(
    store: ChunkStore, collection: Collection
) -> None:
    with pytest.raises(StaleVersion, match="1 is not the latest version, which is 0"):
        await collection.append("doc", lines(*words(MANY)), expected_version=1)
    assert await value(store, "SELECT count(*) FROM files") == 0
    first = await collection.append("doc", lines(*words(MANY)), expected_version=0, idempotency_key="once")
    again = await collection.append("doc", lines(*words(MANY)), expected_version=0, idempotency_key="once")
    assert (first.number, again.number, again.unchanged) == (1, 1, True)


# --- reuse ----------------------------------------------------------------------------------------


async def ids(collection: Collection, key: str, version: int) -> dict[str, int]:
    return {chunk.content: chunk.chunk_id for chunk in await stored(collection, key, version)}


async def test_an_insertion_at_the_front_moves_every_place_and_changes_no_chunk(
    collection: Collection,
) -> None:
    await collection.append("doc", lines(*words(1500)))
    version = await collection.append("doc", lines("in front", *words(1500)))
    assert (version.added, version.reused) == (1, 1500)
    before, after = await ids(collection, "doc", 1), await ids(collection, "doc", 2)
    assert {content: chunk for content, chunk in after.items() if content != "in front"} == before
    assert await read(collection, "doc", 2) == lines("in front", *words(1500))


async def test_an_append_rewrites_only_the_segments_that_it_touches(
    store: ChunkStore, collection: Collection
) -> None:
    texts = words(8000)
    await collection.append("doc", lines(*texts))
    before = await value(store, "SELECT count(*) FROM segments")
    texts[4000] = "changed"
    await collection.append("doc", lines(*texts))
    assert isinstance(before, int)
    assert before >= 6
    assert before < await value(store, "SELECT count(*) FROM segments") <= before + 3  # pyright: ignore[reportOperatorIssue]


async def test_moved_chunks_are_the_same_chunks(collection: Collection) -> None:
    texts = words(3000)
    await collection.append("doc", lines(*texts))
    version = await collection.append("doc", lines(*texts[2500:], *texts[:2500]))
    assert (version.added, version.reused) == (0, 3000)
    assert await ids(collection, "doc", 1) == await ids(collection, "doc", 2)


async def test_duplicates_share_a_chunk_and_keep_their_places(
    store: ChunkStore, collection: Collection
) -> None:
    chunks = lines("same", "between", "same")
    version = await collection.append("doc", chunks)
    first, _, third = await stored(collection, "doc")
    assert first.chunk_id == third.chunk_id
    assert (first.place, third.place) == (chunks[0].place, chunks[2].place)
    assert (version.chunks, version.added, version.reused) == (3, 2, 1)
    assert await value(store, "SELECT count(*) FROM chunks") == 2


async def test_the_same_content_with_other_metadata_is_another_chunk(collection: Collection) -> None:
    version = await collection.append(
        "doc", [Chunk("same", {"n": 1}), Chunk("same", {"n": 2}), Chunk("same")]
    )
    assert version.added == 3


async def test_chunks_are_not_shared_between_files(store: ChunkStore, collection: Collection) -> None:
    await collection.append("one", [Chunk("same")])
    await collection.append("two", [Chunk("same")])
    assert await value(store, "SELECT count(DISTINCT file) FROM chunks") == 2


async def test_a_run_of_chunks_is_one_event(store: ChunkStore, collection: Collection) -> None:
    await collection.append("doc", [Chunk(text) for text in words(2500)])
    async with store.database.transaction() as conn:
        cursor = await conn.execute(
            b"SELECT n, first_chunk IS NOT NULL FROM events"
            b" WHERE type = 'chunks_appended' ORDER BY last_offset"
        )
        assert await cursor.fetchall() == [(1024, True), (1024, True), (452, True)]


# --- unchanged ------------------------------------------------------------------------------------


async def test_an_append_that_changes_nothing_says_how_the_version_stands(
    store: ChunkStore, collection: Collection
) -> None:
    first = await collection.append("doc", [Chunk("one"), Chunk("two")], idempotency_key="k")
    await collection.pin("doc", 1)
    (held,) = await collection.history("doc")
    again = await collection.append("doc", [Chunk("one"), Chunk("two")])
    assert again == msgspec.structs.replace(held, unchanged=True, reused=2, added=0)
    assert (again.pinned, again.committed_at) == (True, first.committed_at)
    await collection.append("doc", [Chunk("three")])
    earlier = await collection.append("doc", [Chunk("one"), Chunk("two")], idempotency_key="k")
    assert (earlier.number, earlier.target, earlier.pinned, earlier.committed_at) == (
        1,
        False,
        True,
        first.committed_at,
    )
    gone = await collection.delete("doc")
    assert (await collection.delete("doc")).committed_at == gone.committed_at is not None


async def test_an_append_of_what_is_there_makes_no_version(store: ChunkStore, collection: Collection) -> None:
    await collection.append("doc", lines("one", "two"), metadata={"a": 1, "b": 2})
    again = await collection.append("doc", lines("one", "two"), metadata={"b": 2, "a": 1})
    assert (again.number, again.unchanged, again.added, again.chunks) == (1, True, 0, 2)
    assert await value(store, "SELECT count(*) FROM versions") == 1


CHANGES = {
    "a chunk": lines("one", "2"),
    "the order": lines("two", "one"),
    "a place": [*lines("one"), Chunk("two", {"kind": "line"}, Place(5, 8, 1, 3))],
    "no places": [Chunk("one", {"kind": "line"}), Chunk("two", {"kind": "line"})],
    "chunk metadata": [*lines("one"), Chunk("two", {"kind": "item"}, Place(4, 7, 1, 2))],
    "fewer": lines("one"),
    "a duplicate": [*lines("one", "two"), *lines("one")],
    "nothing": [],
}


@pytest.mark.parametrize("change", CHANGES)
async def test_an_append_that_changes_anything_makes_a_version(collection: Collection, change: str) -> None:
    await collection.append("doc", lines("one", "two"))
    version = await collection.append("doc", CHANGES[change])
    assert (version.number, version.unchanged) == (2, False)
    assert await read(collection, "doc") == CHANGES[change]


async def test_other_metadata_of_the_version_makes_a_version(collection: Collection) -> None:
    await collection.append("doc", lines("one"), metadata={"a": 1})
    version = await collection.append("doc", lines("one"), metadata={"a": 2})
    assert (version.number, version.unchanged, version.added) == (2, False, 0)
    assert [version.metadata for version in await collection.history("doc")] == [{"a": 1}, {"a": 2}]


async def test_a_file_without_chunks_is_an_empty_version(collection: Collection) -> None:
    version = await collection.append("doc", [])
    assert (version.number, version.chunks, version.tombstone) == (1, 0, False)
    assert (await collection.append("doc", [])).unchanged
    assert await read(collection, "doc") == []
    assert await live_keys(collection) == ["doc"]


async def test_an_empty_version_is_not_a_deletion(collection: Collection) -> None:
    await collection.append("doc", [])
    assert (await collection.delete("doc")).number == 2
    assert (await collection.append("doc", [])).number == 3


# --- streamed -------------------------------------------------------------------------------------


async def test_a_streamed_append_is_the_same_version_as_one_at_once(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = words(4000)
    await collection.append("at once", lines(*texts), metadata={"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr("chunkstore.batches.BATCH_CHUNKS", 600)
        await collection.append("streamed", lines(*texts), metadata={"a": 1})
    for column in ("v.digest", "v.base_ordinals", "v.base_chars", "v.base_pages", "v.base_lines", "v.chunks"):
        assert (
            await value(store, f"SELECT count(DISTINCT {column}) FROM versions v WHERE state = 'committed'")
            == 1
        )
    per_file = "SELECT array_agg(s.digest ORDER BY s.segment) AS digests FROM segments s GROUP BY s.file"
    assert await value(store, f"SELECT count(DISTINCT digests) FROM ({per_file}) AS files") == 1
    assert await read(collection, "streamed") == await read(collection, "at once") == lines(*texts)


@pytest.mark.usefixtures("streamed")
async def test_a_streamed_append_shares_the_segments_that_stay(
    store: ChunkStore, collection: Collection
) -> None:
    texts = words(4000)
    await collection.append("doc", lines(*texts))
    before = await value(store, "SELECT count(*) FROM segments")
    texts[2000] = "changed"
    version = await collection.append("doc", lines(*texts))
    assert (version.added, version.reused, version.chunks) == (1, 3999, 4000)
    assert await value(store, "SELECT count(*) FROM segments") <= before + 3  # pyright: ignore[reportOperatorIssue]
    assert await read(collection, "doc") == lines(*texts)


@pytest.mark.usefixtures("streamed")
async def test_a_streamed_append_finds_the_chunks_of_its_earlier_batches(
    store: ChunkStore, collection: Collection
) -> None:
    texts = words(1000)
    version = await collection.append("doc", lines(*texts, *texts, *texts))
    assert (version.chunks, version.added) == (3000, 1000)
    assert await value(store, "SELECT count(*) FROM chunks") == 1000


@pytest.mark.usefixtures("streamed")
async def test_a_streamed_append_of_what_is_there_abandons_its_version(
    store: ChunkStore, collection: Collection
) -> None:
    await collection.append("doc", lines(*words(2000)))
    again = await collection.append("doc", lines(*words(2000)))
    assert (again.number, again.unchanged) == (1, True)
    assert [version.state for version in await collection.history("doc")] == ["committed", "abandoned"]
    await collect(store)
    assert await read(collection, "doc") == lines(*words(2000))
    assert await value(store, "SELECT count(*) FROM chunks") == 2000


@pytest.mark.usefixtures("streamed")
async def test_nobody_sees_a_version_that_is_still_streamed(collection: Collection) -> None:
    await collection.append("doc", lines("before"))

    async def looking() -> AsyncIterator[Chunk]:
        for i, chunk in enumerate(lines(*words(3000))):
            if i == 2900:
                assert await read(collection, "doc") == lines("before")
                assert [version.state for version in await collection.history("doc")] == ["committed", "open"]
            yield chunk

    assert (await collection.append("doc", looking())).number == 2


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("failure", ["an error", "a bad chunk", "a cancellation"])
async def test_a_stream_that_breaks_off_leaves_nothing(
    store: ChunkStore, collection: Collection, failure: str
) -> None:
    await collection.append("doc", lines("before"))

    async def breaking() -> AsyncIterator[Chunk]:
        for chunk in lines(*words(2500)):
            yield chunk
        if failure == "an error":
            raise ZeroDivisionError
        if failure == "a bad chunk":
            yield Chunk("")
        scope.cancel()
        await anyio.sleep_forever()

    scope = anyio.CancelScope()
    expected = {"an error": ZeroDivisionError, "a bad chunk": InvalidInput}.get(failure)
    with scope:
        if expected is None:
            await collection.append("doc", breaking())
        else:
            with pytest.raises(expected):
                await collection.append("doc", breaking())
    assert [version.state for version in await collection.history("doc")] == ["committed", "abandoned"]
    assert await read(collection, "doc") == lines("before")
    await collect(store)
    assert await value(store, "SELECT count(*) FROM chunks") == 1
    assert await value(store, "SELECT count(*) FROM segments") == 1


@pytest.mark.usefixtures("streamed")
async def test_a_file_whose_only_version_broke_off_is_not_there(collection: Collection) -> None:
    def breaking() -> Iterator[Chunk]:
        yield from lines(*words(2500))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await collection.append("doc", breaking())
    assert await live_keys(collection) == []
    with pytest.raises(UnknownFile):
        await stored(collection, "doc")
    with pytest.raises(UnknownFile):
        await collection.delete("doc")


@pytest.mark.usefixtures("streamed")
async def test_each_batch_renews_the_deadline_of_its_open_version(
    store: ChunkStore, collection: Collection
) -> None:
    deadlines: list[object] = []

    async def looking() -> AsyncIterator[Chunk]:
        for i, chunk in enumerate(lines(*words(4000))):
            if i in (2000, 3900):
                deadlines.append(await value(store, "SELECT deadline FROM versions WHERE state = 'open'"))
            yield chunk

    await collection.append("doc", looking())
    assert deadlines[0] < deadlines[1]  # pyright: ignore[reportOperatorIssue]


# --- bounded memory -------------------------------------------------------------------------------


@pytest.mark.usefixtures("streamed")
async def test_a_stream_is_read_no_further_than_its_batches_ahead_of_the_database(
    store: ChunkStore, collection: Collection
) -> None:
    ahead: list[int] = []

    async def watched() -> AsyncIterator[Chunk]:
        for i in range(9000):
            if i % 700 == 699:
                count = await value(
                    store, "SELECT coalesce(max(chunks), 0) FROM versions WHERE state = 'open'"
                )
                assert isinstance(count, int)
                ahead.append(i + 1 - count)
            yield Chunk(f"word {i}")

    await collection.append("doc", watched())
    assert max(ahead) <= 2 * 600 + manifests.SEGMENT_MAX + 256


async def peak_of(collection: Collection, key: str, count: int) -> int:
    """The most bytes that Python held while it appended so many chunks of 4,000 bytes."""
    tracemalloc.start()
    try:
        await collection.append(key, (Chunk(f"{i} " + "x" * 4000) for i in range(count)))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_memory_does_not_grow_with_the_file(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_BYTES", 2**20)
    monkeypatch.setattr(manifests, "SEGMENT_MAX", 600)
    short = await peak_of(collection, "short", 2500)
    long = await peak_of(collection, "long", 10000)
    assert long < 1.5 * short


def total(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.content) for chunk in chunks)


async def test_large_contents_are_streamed_by_their_size(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_BYTES", 5000)
    chunks = [Chunk(f"{i} " + "x" * 900) for i in range(40)]
    assert total(chunks) > 5000
    opened: list[int] = []
    extend = appending.versions.open_version

    async def counting(*args: object) -> int:
        opened.append(1)
        return await extend(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(appending.versions, "open_version", counting)
    await collection.append("doc", chunks)
    assert opened == [1]
    assert await read(collection, "doc") == chunks


def test_what_is_sent_in_one_transaction_is_measured_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 1000)
    assert batches.fit_one_batch([Chunk("a" * 400), Chunk("b" * 400)])
    assert not batches.fit_one_batch([Chunk("й" * 400), Chunk("ц" * 400)])


async def test_a_chunk_of_an_older_version_is_the_same_chunk_when_it_comes_back(
    store: ChunkStore, collection: Collection
) -> None:
    first = [Chunk("twice"), *(Chunk(f"one {i}") for i in range(2_500))]
    await collection.append("doc", first)
    await collection.append("doc", [Chunk(f"two {i}") for i in range(2_500)])
    third = await collection.append("doc", [Chunk("twice")])
    fourth = await collection.append("doc", [*first, Chunk("twice")])
    assert (third.reused, third.added) == (1, 0)
    assert (fourth.reused, fourth.added) == (2_502, 0)
    ids = [chunk.chunk_id async for chunk in collection.chunks("doc")]
    assert ids[0] == ids[-1]
    assert (await verify(store)).ok
