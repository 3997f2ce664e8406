"""Text that means something to SQL, to a format or to a shell is text here, in every field that takes any."""

import pytest

from chunkstore.collection import Collection
from chunkstore.errors import IdempotencyKeyReused, UnknownCollection, UnknownFile
from chunkstore.model import Chunk
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from projections.verify import verify
from tests.fix_server import drop_schema
from tests.store.fix_pipeline import drain
from tests.store.fix_store import shared_store as store

__all__ = ["store"]

HASHING = HashingModel(8)

TEXTS = [
    "'; DROP TABLE chunks; --",
    "'); DELETE FROM files; SELECT ('",
    '"; DROP SCHEMA public CASCADE; --',
    "' OR '1'='1",
    "1; SELECT pg_sleep(60)",
    "\\'; COMMIT; BEGIN; --",
    "$$; DROP TABLE events; $$",
    "E'\\x27'",
    "/* not the end",
    "-- not the end\n; SELECT 1",
    "%s %(key)s %% %d %",
    "{} {0} {search} {{}}",
    "{1,2,3}",
    "{NULL}",
    "NULL",
    "[1,2,3]",
    "(1,2)",
    ":name ?1 $1 @x",
    "\\copy chunks to stdout",
    "\\",
    "\\\\x00",
    "\\N",
    "\\.",
    "a\tb\rc\nd\x0be\x1bf\x7f",
    "\u202eright to left\u202c",
    "\ufeffbyte order mark",
    "e\u0301 is not \u00e9",
    "\U0001f469\u200d\U0001f52c",
    "../../etc/passwd",
    "file:///etc/passwd",
    "<script>alert(1)</script>",
    "$(touch /tmp/owned) `id` ; | & > <",
    '"quoted"',
    "it's",
    "true",
    "-1",
    " ",
    "\n",
    "chunkstore",
    "pg_catalog",
]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
async def test_text_goes_in_and_comes_out_as_it_was_in_every_field(store: ChunkStore, text: str) -> None:
    collection = await store.collection(f"c{text}", model=HASHING)
    metadata = {text: text, "nested": [{text: [text]}]}
    chunk = Chunk(text, metadata)
    version = await collection.append(text, [chunk], idempotency_key=text, metadata=metadata)
    await drain(store, HASHING)

    assert (version.key, version.metadata) == (text, metadata)
    assert [(v.key, v.metadata) for v in await collection.history(text)] == [(text, metadata)]
    assert [(c.content, c.metadata) async for c in collection.chunks(text)] == [(text, metadata)]
    hit = (await collection.search(text, k=1))[0]
    assert (hit.key, hit.content, hit.metadata) == (text, text, metadata)
    assert hit.score == pytest.approx(1, abs=1e-3)
    again = await collection.append(text, [chunk], idempotency_key=text, metadata=metadata)
    assert again.number == 1
    with pytest.raises(IdempotencyKeyReused):
        await collection.append(text, [Chunk("other")], idempotency_key=text)
    assert f"c{text}" in [row.name for row in await store.collections()]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
async def test_text_that_names_nothing_finds_nothing(store: ChunkStore, text: str) -> None:
    collection: Collection = await store.collection("known", model=HASHING)
    with pytest.raises(UnknownCollection):
        await store.collection(f"unknown {text}")
    for attempt in (collection.history, collection.delete, collection.erase):
        with pytest.raises(UnknownFile):
            await attempt(f"unknown {text}")


async def test_nothing_of_it_broke_the_store(store: ChunkStore) -> None:
    """Last in this module: the store has seen every text by now, unless it is run alone."""
    assert (await verify(store)).ok


@pytest.mark.parametrize("name", ['my "store"; --', "it's {0} %s", "Größe", "select"])
async def test_a_schema_of_any_name_works_from_end_to_end(dsn: str, name: str) -> None:
    try:
        async with await ChunkStore.open(dsn, schema=name, migrate=True) as store:
            collection = await store.collection("docs", model=HASHING)
            await collection.append("key", [Chunk("tea"), Chunk("ships")])
            await drain(store, HASHING)
            assert (await collection.search("tea", k=1))[0].content == "tea"
            await collection.append("key", [Chunk("tea"), Chunk("bread")])
            await drain(store, HASHING)
            assert sorted(hit.content for hit in await collection.search("tea")) == ["bread", "tea"]
            assert (await verify(store)).ok
    finally:
        drop_schema(dsn, name)
