"""Search among active and superseded rows, against the same query by hand on a table of active rows alone."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, Timed, against
from benchmarks.peers import ActiveRows
from benchmarks.pipeline import drain
from chunkstore import ChunkStore
from chunkstore.arrays import Vector, adapters
from chunkstore.collection import Collection
from chunkstore.search import nearest_statement, settings
from consumers.embedding import EmbeddingConsumer

DIMENSIONS = 384
K = 10
_QUERIES = 40


async def main(setup: Setup) -> list[Result]:
    """The nearest alone, the whole statement, and the whole call."""
    files = 6 if setup.quick else 20
    model = material.NullModel(DIMENSIONS, distinct=files * 1100)
    async with setup.store() as store:
        collection = await store.collection("bench", model=model)
        await _fill(store, collection, model, files)
        with setup.peer() as conn, _own(setup.dsn) as own:
            by_hand = ActiveRows(conn, DIMENSIONS)
            inactive = _copy_active(conn, store, collection)
            by_hand.index()
            cited = _statement(own, store, collection)
            nearest = cited.partition("\n)\n")[0] + "\n)\nSELECT chunk_id, distance FROM nearest"
            searched = collection._models[0]  # noqa: SLF001
            given = {
                "model": searched.model,
                "collection": collection.row.collection,
                "table": searched.search_table,
            }
            queries = material.clustered(1000, DIMENSIONS, seed=7)
            halves = [HalfVector(query) for query in queries]
            vectors = [Vector(query) for query in queries]
            recall = await _recalls(conn, collection, by_hand, queries)
            note = f"{inactive:.1%} inactive; recall@10 {recall[0]:.3f} against {recall[1]:.3f}"

            def timed(ask: Callable[[int], object]) -> Timed:
                async def run(turn: int) -> float:
                    with Stopwatch() as watch:
                        for i in _turn(turn):
                            ask(i)
                    return watch.seconds / _QUERIES

                return run

            def statement(text: str) -> Timed:
                return timed(
                    lambda i: own.execute(text, given | {"query": vectors[i]}, binary=True).fetchall()
                )

            async def whole_call(turn: int) -> float:
                with Stopwatch() as watch:
                    for i in _turn(turn):
                        await collection.search(queries[i], k=K)
                return watch.seconds / _QUERIES

            nearest_by_hand = timed(lambda i: by_hand.nearest(halves[i], K))
            cited_by_hand = timed(lambda i: by_hand.search(halves[i], K))
            target, rounds, name = Target("≤", 1.1), setup.rounds(15), "by hand, active rows alone"
            rows = f"{files * 1000:,}"
            lines = [
                await against(work, ours, peer, name=name, rounds=rounds, target=target)
                for work, ours, peer in (
                    (f"search {rows}, the ten nearest", statement(nearest), nearest_by_hand),
                    ("the same, with what it takes to cite them", statement(cited), cited_by_hand),
                    ("the same, the whole call `collection.search`", whole_call, cited_by_hand),
                )
            ]
            return [_noted(line, note) for line in lines]


def _turn(turn: int) -> list[int]:
    return random.Random(turn).sample(range(1000), _QUERIES)


def _noted(line: Result, note: str) -> Result:
    return msgspec.structs.replace(line, note=note)


async def _fill(store: ChunkStore, collection: Collection, model: material.NullModel, files: int) -> None:
    """Files of 1,000 chunks, active and indexed; then one chunk in fifty changed, embedded, not switched."""
    for i in range(files):
        await collection.append(f"file-{i}", material.stream(1000, seed=i))
    await drain(store, model)
    for i in range(files):
        changed = material.edited(material.chunks(1000, seed=i), range(0, 1000, 50), "new")
        await collection.append(f"file-{i}", changed)
    await EmbeddingConsumer(store, model).run(drain=True)


def _copy_active(conn: psycopg.Connection[Any], store: ChunkStore, collection: Collection) -> float:
    """Fills the table by hand from the store's active rows; returns the share of rows that are inactive."""
    searched = collection._models[0]  # noqa: SLF001
    places = {
        name: sql.Identifier(store.database.schema, table)
        for name, table in {
            "search": searched.search_table,
            "active": searched.active_table,
            "files": "files",
            "chunks": "chunks",
            "versions": "active_versions",
        }.items()
    }
    copy = """
        INSERT INTO active_rows ({columns})
        SELECT s.chunk_id, f.key, v.version, row_number() OVER (PARTITION BY f.file ORDER BY s.chunk_id),
               0, 800, c.content, c.metadata, s.embedding
        FROM {search} s
        JOIN {active} a USING (chunk_id)
        JOIN {files} f ON f.file = a.file
        JOIN {versions} v ON v.file = f.file
        JOIN {chunks} c USING (chunk_id)
        ORDER BY s.chunk_id
    """
    conn.execute(sql.SQL(copy).format(columns=sql.SQL(ActiveRows.COLUMNS), **places))
    counted = "SELECT (SELECT count(*) FROM {active})::float8 / (SELECT count(*) FROM {search})"
    active = conn.execute(sql.SQL(counted).format(**places)).fetchone()
    assert active is not None
    return 1 - active[0]


def _own(dsn: str) -> psycopg.Connection[Any]:
    """A connection that sends vectors as the store's do."""
    with psycopg.connect(dsn) as conn:
        found = conn.execute("SELECT 'vector'::regtype::oid").fetchone()
    assert found is not None
    return psycopg.connect(dsn, autocommit=True, context=adapters(found[0]))


def _statement(own: psycopg.Connection[Any], store: ChunkStore, collection: Collection) -> str:
    """The store's search statement, on a connection that has its search path and settings for good."""
    searched = collection._models[0]  # noqa: SLF001
    path = sql.SQL("SET search_path = {}, public").format(sql.Identifier(store.database.schema))
    own.execute(path)
    for name, value in settings(K, store.database).items():
        own.execute("SELECT set_config(%s, %s, false)", [name, value])
    return nearest_statement(searched, K).decode()


async def _recalls(
    conn: psycopg.Connection[Any], collection: Collection, by_hand: ActiveRows, queries: NDArray[np.float32]
) -> tuple[float, float]:
    """Recall@10 of both against an exact scan of the active rows, over 50 queries."""
    found = conn.execute("SELECT chunk_id, embedding::vector FROM active_rows").fetchall()
    ids = np.array([chunk_id for chunk_id, _ in found])
    vectors = np.stack([vector.to_numpy() for _, vector in found])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ours = theirs = 0
    for query in queries[:50]:
        exact = set(ids[np.argpartition(-(vectors @ query), K)[:K]].tolist())
        ours += len(exact & {hit.chunk_id for hit in await collection.search(query, k=K)})
        theirs += len(exact & {row[0] for row in by_hand.search(HalfVector(query), K)})
    return ours / (50 * K), theirs / (50 * K)
