"""The peers, as their own users would write them: bare COPY, a visibility-timeout queue, a hand-made index.

All block: the fastest way that the driver has, with no event loop under it.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from chunkstore import Chunk

ChunkRow = tuple[int, int, bytes, bytes, str, Jsonb]


class BareChunks:
    """A table without index or constraint that holds what `chunks` holds, filled by binary COPY."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        conn.execute(
            "CREATE TABLE bare_chunks (chunk_id bigint, file bigint, hash bytea, text_hash bytea,"
            " content text, metadata jsonb)"
        )

    @staticmethod
    def rows(chunks: Sequence[Chunk]) -> list[ChunkRow]:
        return [(i, 1, bytes(16), bytes(16), c.content, Jsonb(c.metadata)) for i, c in enumerate(chunks)]

    def copy(self, rows: Iterable[ChunkRow]) -> None:
        with (
            self._conn.transaction(),
            self._conn.cursor() as cursor,
            cursor.copy("COPY bare_chunks FROM STDIN (FORMAT binary)") as copy,
        ):
            copy.set_types(["int8", "int8", "bytea", "bytea", "text", "jsonb"])
            for row in rows:
                copy.write_row(row)


class BareVectors:
    """A table without index or constraint, filled by binary COPY."""

    def __init__(self, conn: psycopg.Connection[Any], dimensions: int) -> None:
        self._conn = conn
        register_vector(conn)
        conn.execute(f"CREATE TABLE bare_vectors (chunk_id bigint, embedding vector({dimensions}))")

    def copy(self, ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        with (
            self._conn.transaction(),
            self._conn.cursor() as cursor,
            cursor.copy("COPY bare_vectors FROM STDIN (FORMAT binary)") as copy,
        ):
            copy.set_types(["int8", "vector"])
            for row in zip(ids, vectors, strict=True):
                copy.write_row(row)


class Queue:
    """A visibility-timeout queue: the tables and statements that pgmq makes, in batches."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        conn.execute(
            """
            CREATE TABLE queue (
                msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
                read_ct integer NOT NULL DEFAULT 0,
                enqueued_at timestamptz NOT NULL DEFAULT now(),
                vt timestamptz NOT NULL,
                message jsonb
            );
            CREATE INDEX queue_vt ON queue (vt);
            CREATE TABLE queue_archive (
                msg_id bigint PRIMARY KEY,
                read_ct integer NOT NULL DEFAULT 0,
                enqueued_at timestamptz NOT NULL DEFAULT now(),
                archived_at timestamptz NOT NULL DEFAULT now(),
                vt timestamptz NOT NULL,
                message jsonb
            );
            CREATE INDEX queue_archived_at ON queue_archive (archived_at);
            """
        )

    def send(self, chunk_ids: Sequence[int]) -> None:
        self._conn.execute(
            "INSERT INTO queue (vt, message) SELECT clock_timestamp(), unnest(%s::jsonb[]) RETURNING msg_id",
            ([Jsonb({"chunk": chunk_id}) for chunk_id in chunk_ids],),
        )

    def read(self, batch: int, seconds: int = 30) -> list[tuple[int, int]]:
        """Message and chunk ids, hidden from other readers for that long."""
        found = self._conn.execute(
            """
            WITH cte AS (
                SELECT msg_id
                FROM queue
                WHERE vt <= clock_timestamp()
                ORDER BY msg_id ASC
                LIMIT %s
                FOR UPDATE SKIP LOCKED
            )
            UPDATE queue m
            SET vt = clock_timestamp() + make_interval(secs => %s), read_ct = read_ct + 1
            FROM cte
            WHERE m.msg_id = cte.msg_id
            RETURNING m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message
            """,
            (batch, seconds),
        )
        return [(row[0], row[4]["chunk"]) for row in found]

    def archive(self, messages: Sequence[int]) -> None:
        self._conn.execute(
            """
            WITH archived AS (
                DELETE FROM queue
                WHERE msg_id = ANY (%s)
                RETURNING msg_id, vt, read_ct, enqueued_at, message
            )
            INSERT INTO queue_archive (msg_id, vt, read_ct, enqueued_at, message)
            SELECT msg_id, vt, read_ct, enqueued_at, message
            FROM archived
            RETURNING msg_id
            """,
            (list(messages),),
        )


class ActiveRows:
    """A search table made by hand: the active rows alone, with their content and the same HNSW index."""

    CITED = "chunk_id, key, version, ordinal, start_char, end_char, content, metadata"
    COLUMNS = f"{CITED}, embedding"
    NEAREST = f"""
        SELECT {CITED}, embedding <=> %(query)s::halfvec AS distance
        FROM active_rows
        ORDER BY embedding <=> %(query)s::halfvec
        LIMIT {{k}}
    """

    def __init__(self, conn: psycopg.Connection[Any], dimensions: int) -> None:
        self._conn = conn
        register_vector(conn)
        conn.execute(
            f"""
            CREATE TABLE active_rows (
                chunk_id bigint PRIMARY KEY,
                key text NOT NULL,
                version integer NOT NULL,
                ordinal integer NOT NULL,
                start_char integer,
                end_char integer,
                content text NOT NULL,
                metadata jsonb NOT NULL,
                embedding halfvec({dimensions}) NOT NULL
            )
            """
        )

    def index(self) -> None:
        self._conn.execute("SET maintenance_work_mem = '512MB'")
        self._conn.execute("CREATE INDEX ON active_rows USING hnsw (embedding halfvec_cosine_ops)")
        self._conn.execute("VACUUM ANALYZE active_rows")

    def nearest(self, query: HalfVector, k: int) -> list[tuple[Any, ...]]:
        statement = self.NEAREST.format(k=k).replace(self.CITED, "chunk_id")
        return self._conn.execute(statement, {"query": query}, binary=True).fetchall()

    def search(self, query: HalfVector, k: int) -> list[tuple[Any, ...]]:
        return self._conn.execute(self.NEAREST.format(k=k), {"query": query}, binary=True).fetchall()


_NAMESPACE = UUID(int=1984)


class IndexingApi:
    """A record manager beside a vector table, in batches of 100: asks what exists, upserts, cleans up."""

    BATCH = 100

    def __init__(self, conn: psycopg.Connection[Any], dimensions: int) -> None:
        self._conn = conn
        register_vector(conn)
        conn.execute(
            f"""
            CREATE TABLE record (
                uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                key text,
                namespace text NOT NULL,
                group_id text,
                updated_at double precision,
                UNIQUE (key, namespace)
            );
            CREATE INDEX record_group ON record (group_id);
            CREATE INDEX record_updated ON record (updated_at);
            CREATE TABLE embedding (
                id varchar PRIMARY KEY,
                collection_id uuid,
                embedding vector({dimensions}),
                document varchar,
                cmetadata jsonb
            );
            CREATE INDEX embedding_metadata ON embedding USING gin (cmetadata jsonb_path_ops);
            """
        )

    def build_index(self) -> None:
        """Makes the index that a search needs."""
        self._conn.execute("CREATE INDEX ON embedding USING hnsw (embedding vector_cosine_ops)")

    def index(self, source: str, chunks: Sequence[Chunk], embed: Any) -> int:
        """Brings the table up to the chunks of one source; returns how many were embedded."""
        begun = self._now()
        embedded = 0
        for start in range(0, len(chunks), self.BATCH):
            embedded += self._batch(source, chunks[start : start + self.BATCH], embed)
        self._clean_up(source, begun)
        return embedded

    def _batch(self, source: str, chunks: Sequence[Chunk], embed: Any) -> int:
        keyed = {self._key(source, chunk): chunk for chunk in chunks}
        with self._conn.transaction():
            found = self._conn.execute(
                "SELECT key FROM record WHERE key = ANY (%s) AND namespace = 'bench'", (list(keyed),)
            )
            known = {key for (key,) in found}
        new = {key: chunk for key, chunk in keyed.items() if key not in known}
        if new:
            vectors = embed([chunk.content for chunk in new.values()])
            with self._conn.transaction(), self._conn.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO embedding (id, embedding, document, cmetadata) VALUES (%s, %s, %s, %s)"
                    " ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding,"
                    " document = EXCLUDED.document, cmetadata = EXCLUDED.cmetadata",
                    [
                        (key, vector, chunk.content, Jsonb({"source": source, **chunk.metadata}))
                        for (key, chunk), vector in zip(new.items(), vectors, strict=True)
                    ],
                )
        now = self._now()
        with self._conn.transaction(), self._conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO record (key, namespace, group_id, updated_at) VALUES (%s, 'bench', %s, %s)"
                " ON CONFLICT (key, namespace) DO UPDATE SET updated_at = EXCLUDED.updated_at",
                [(key, source, now) for key in keyed],
            )
        return len(new)

    def _clean_up(self, source: str, begun: float) -> None:
        while True:
            found = self._conn.execute(
                "SELECT key FROM record"
                " WHERE namespace = 'bench' AND group_id = %s AND updated_at < %s LIMIT 1000",
                (source, begun),
            )
            gone = [key for (key,) in found]
            if not gone:
                return
            with self._conn.transaction():
                self._conn.execute("DELETE FROM embedding WHERE id = ANY (%s)", (gone,))
                self._conn.execute("DELETE FROM record WHERE key = ANY (%s) AND namespace = 'bench'", (gone,))

    def _now(self) -> float:
        found = self._conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert found is not None
        return found[0]

    @staticmethod
    def _key(source: str, chunk: Chunk) -> str:
        hashed = sha256(f"{source}\0{chunk.content}\0{chunk.metadata}".encode()).hexdigest()
        return str(uuid5(_NAMESPACE, hashed))
