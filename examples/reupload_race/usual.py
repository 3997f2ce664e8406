"""The usual pipeline, as it is usually written: an upload deletes, inserts and queues one job a chunk.

Foreign keys cascade, and workers take jobs with SKIP LOCKED. It runs twice: with the text in the job, as
message queues have it, and with workers that look the chunk up first.
"""

from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import psycopg
from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool

from chunkstore.embedded import EmbeddedServer
from chunkstore.models import Model
from examples.reupload_race.ledger import Ledger, now

Pool = AsyncConnectionPool[AsyncConnection[Any]]

TABLES = """
CREATE TABLE documents (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL UNIQUE
);
CREATE TABLE chunks (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
    content     text NOT NULL
);
CREATE INDEX ON chunks (document_id);
CREATE TABLE embeddings (
    chunk_id  bigint PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    embedding vector(64) NOT NULL
);
CREATE TABLE jobs (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunk_id bigint NOT NULL,
    content  text NOT NULL
);
"""

FIND_DOCUMENT = """
INSERT INTO documents (key)
VALUES (%s)
ON CONFLICT (key) DO UPDATE
SET key = EXCLUDED.key
RETURNING id
"""

INSERT_AND_QUEUE = """
WITH new AS (
    INSERT INTO chunks (document_id, content)
    SELECT %s, unnest(%s::text[])
    RETURNING id, content
),
queued AS (
    INSERT INTO jobs (chunk_id, content)
    SELECT id, content
    FROM new
    ORDER BY id
)
SELECT min(id)
FROM new
"""

TAKE_JOB = """
DELETE FROM jobs
WHERE id = (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING chunk_id, content
"""

SEARCH = """
SELECT c.content
FROM embeddings e
JOIN chunks c ON c.id = e.chunk_id
ORDER BY e.embedding <=> %s::vector
LIMIT %s
"""


class Usual:
    """Delete, insert, queue; the database's foreign keys keep it consistent, one statement at a time."""

    batch = 1
    """Texts of one call of the model."""

    def __init__(self, pool: Pool, model: Model, *, looks_first: bool) -> None:
        self.name = "usual, look first" if looks_first else "usual, text in job"
        self._pool = pool
        self._model = model
        self._looks_first = looks_first
        self._violations = 0

    async def upload(self, key: str, texts: list[str]) -> int:
        """Replaces a file's chunks; returns a number that grows with every upload of the file."""
        async with self._pool.connection() as conn:
            (document,) = await _row(conn, FIND_DOCUMENT, [key])
            await conn.execute("DELETE FROM chunks WHERE document_id = %s", [document])
            (first_chunk,) = await _row(conn, INSERT_AND_QUEUE, [document, texts])
        return first_chunk

    async def work(self, worker: int, ledger: Ledger, stop: anyio.Event) -> None:
        """Embeds until the stop."""
        while not stop.is_set():
            if not await self._one_job(worker, ledger):
                await anyio.sleep(0.005)

    async def drain(self) -> None:
        """Embeds what waits."""
        while await self._one_job(0, Ledger()):
            pass

    async def search(self, query: np.ndarray, k: int) -> list[str]:
        """The content of the k nearest chunks."""
        async with self._pool.connection() as conn:
            found = await conn.execute(SEARCH, [query.tolist(), k])
            return [content for (content,) in await found.fetchall()]

    def violations(self) -> int:
        """How often the database refused a vector for a chunk that was gone."""
        return self._violations

    async def _one_job(self, worker: int, ledger: Ledger) -> bool:
        read = now()
        async with self._pool.connection() as conn:
            job = await (await conn.execute(TAKE_JOB)).fetchone()
            if job is None:
                return False
            chunk, content = job
            if self._looks_first:
                read = now()
                look = await conn.execute("SELECT content FROM chunks WHERE id = %s", [chunk])
                if await look.fetchone() is None:
                    return True
            ledger.read([content], read)
            given = now()
            (vector,) = await anyio.to_thread.run_sync(self._model.embed, [content])
            ledger.called(worker, [content], given)
            try:
                async with conn.transaction():
                    await conn.execute("INSERT INTO embeddings VALUES (%s, %s)", [chunk, vector.tolist()])
            except psycopg.errors.ForeignKeyViolation:
                self._violations += 1
        return True


async def _row(conn: AsyncConnection[Any], statement: str, params: list[Any]) -> tuple[Any, ...]:
    found = await (await conn.execute(statement.encode(), params)).fetchone()
    assert found is not None
    return found


async def usual_tables(server: EmbeddedServer, schema: str) -> Pool:
    """A pool of connections to the usual pipeline's tables, made anew."""
    path = sql.SQL("SET search_path = {}, chunkstore, public").format(sql.Identifier(schema))

    async def configure(conn: AsyncConnection[Any]) -> None:
        await conn.execute(path)
        await conn.commit()

    address = server.dsn.conninfo()
    async with await AsyncConnection.connect(address, autocommit=True) as conn:
        await conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        await conn.execute(path)
        await conn.execute(TABLES)
    return Pool(address, configure=configure, max_size=8, open=False)
