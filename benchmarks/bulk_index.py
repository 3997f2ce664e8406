"""A bulk load from append to searchable with its HNSW index, against COPY and CREATE INDEX by hand."""

import statistics
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from benchmarks.pipeline import running
from chunkstore import Chunk, ChunkStore, rows
from chunkstore.collection import Collection

DIMENSIONS = 384
_FILE = 1_000
_WAIT = 600.0


async def main(setup: Setup) -> list[Result]:
    """60,000 chunks of 800 bytes in files of 1,000, embedded by a null model; the same rows by hand."""
    count = 6_000 if setup.quick else 60_000
    chunks = material.chunks(count)
    model = material.NullModel(DIMENSIONS, distinct=count)
    vectors = material.clustered(count, DIMENSIONS)
    query = material.clustered(1, DIMENSIONS, seed=7)[0]
    until_active: list[float] = []

    async def ours(_: int) -> float:
        async with setup.store() as store:
            collection = await store.collection("bench", model=model)
            async with running(store, model):
                with Stopwatch() as watch:
                    with Stopwatch() as active:
                        await _load(collection, chunks)
                    await _indexed(store, collection)
                assert not (await collection.search(query)).exact, "the index answers"
            until_active.append(active.seconds)
        return watch.seconds

    async def by_hand(_: int) -> float:
        return await anyio.to_thread.run_sync(_by_hand, setup, chunks, vectors)

    line = await against(
        f"{count:,} vectors of {DIMENSIONS} from append to searchable with their index",
        ours,
        by_hand,
        name="binary COPY and CREATE INDEX by hand, the same operators and memory",
        rounds=setup.rounds(5),
        target=Target("≤", 1.15),
    )
    note = f"all active after {statistics.median(until_active[1:]):.1f} s"
    return [msgspec.structs.replace(line, note=note)]


async def _load(collection: Collection, chunks: Sequence[Chunk]) -> None:
    versions = [
        await collection.append(f"file-{start}", chunks[start : start + _FILE])
        for start in range(0, len(chunks), _FILE)
    ]
    for version in versions:
        await collection.wait_until_active(version, timeout=_WAIT)


async def _indexed(store: ChunkStore, collection: Collection) -> None:
    """Returns when the index is valid; a search that asked meanwhile would read every row."""
    table = {"table": collection._models[0].search_table}  # noqa: SLF001
    with anyio.fail_after(_WAIT):
        while True:
            async with store.database.transaction() as conn:
                if await rows.fetch_value(conn, "SELECT has_index(quote_ident(%(table)s))", table):
                    return
            await anyio.sleep(0.2)


def _by_hand(setup: Setup, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> float:
    with setup.peer() as conn:
        register_vector(conn)
        conn.execute(
            f"CREATE TABLE bulk (chunk_id bigint, content text, embedding halfvec({DIMENSIONS}) NOT NULL)"
        )
        with Stopwatch() as watch:
            _copy(conn, chunks, vectors)
            conn.execute("SET maintenance_work_mem = '512MB'")
            conn.execute("CREATE INDEX ON bulk USING hnsw (embedding halfvec_cosine_ops)")
        conn.execute("DROP TABLE bulk")
    return watch.seconds


def _copy(conn: psycopg.Connection[Any], chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
    with (
        conn.transaction(),
        conn.cursor() as cursor,
        cursor.copy("COPY bulk FROM STDIN (FORMAT binary)") as copy,
    ):
        copy.set_types(["int8", "text", "halfvec"])
        for i, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
            copy.write_row((i, chunk.content, HalfVector(vector)))
