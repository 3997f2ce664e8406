"""Scenes: files in just the state that two operations meet over, and what became of them afterwards.

A scene's file has the versions 1 (a b), 2 (b c), 3 (c d, active) and 4 (d e f, the target), of which facts
that the operations need make more: a lease in hand, a dead letter, a version that is decided on.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from chunkstore import catalog, connections, leases, migrate, rows, versions
from chunkstore.append import _add_batch
from chunkstore.chunks import prepare
from chunkstore.cli.partitions import set_partitions
from chunkstore.collection import Collection
from chunkstore.database import BY_INDEX, Database
from chunkstore.dsn import Dsn
from chunkstore.events import VersionAbandoned, VersionCollected
from chunkstore.leases import Lease
from chunkstore.manifests import Segmenter
from chunkstore.model import Chunk, FileId
from chunkstore.models.hashing import HashingModel
from chunkstore.search_tables import ModelRow
from chunkstore.store import ChunkStore
from consumers.batching import Batching
from consumers.embedding import EmbeddingConsumer, Work
from consumers.loop import Handler, Loop
from projections import collector
from projections.collector import COLLECTOR
from projections.projector import Projector
from tests.fix_server import drop_schema
from tests.interleavings.gates import Gates, Watch

MODELS = (HashingModel(8), HashingModel(9))
PARTITIONS = 2
SHARED = "docs"
"""The collection of the files that need none for themselves."""
AT_ONCE = 24
"""Files that are made at once, which spares time."""

LEASED = frozenset({"lease", "again", "alone", "tried", "dead"})
"""Facts that need chunks which are not embedded yet."""
OWN = frozenset({"own collection", "second model"})
"""Facts that need a collection for the file alone."""


_STAGED_FROM_ONE = {"switch_file": ("cardinality(_missing) > 1000", "cardinality(_missing) > 0")}
"""Missing search rows are staged in batches wherever there is one, as where there are thousands."""


class Silent:
    """Hints that nobody is given, because a NOTIFY would be a statement of its own at any time."""

    def give(self) -> None:
        return

    async def close(self) -> None:
        return


class Side:
    """One process: its store, and what its consumer, projector and collector are made of."""

    def __init__(self, store: ChunkStore, watch: Watch, known: Sequence[ModelRow]) -> None:
        self.store = store
        self.database = store.database
        self.watch = watch
        self.models = [row.model for row in known]
        self.handlers: list[Handler[Any, Any]] = [
            EmbeddingConsumer(store, model).handler(row) for model, row in zip(MODELS, known, strict=True)
        ]
        self.projectors = [Projector(store, model.name) for model in MODELS]
        self.collector = collector._Run(store, collector.CollectReport(), collector._silent)

    def loop(self, model: int = 0, *, batch: int = 2) -> Loop:
        """A consumer that has claimed nothing yet."""
        group = leases.embedding_group(self.models[model])
        return Loop(self.database, group, self.handlers[model], batching=Batching(batch), lease_seconds=60.0)

    async def settle(self, held: "Held", error: str | None = None) -> None:
        """Ends a range as its consumer does: with vectors, or with the model's error."""
        handler, (lease, work) = self.handlers[0], held
        result = handler.work(work, nullcontext())
        if error is not None:
            failed = dict.fromkeys(work.texts, error)
            result = msgspec.structs.replace(result, vectors={}, errors=failed)
        async with self.database.transaction(BY_INDEX) as conn:
            await handler.settle(conn, lease, work, result)

    async def project(self, partition: int, model: int = 0) -> None:
        """One batch of events of the partition."""
        group = leases.projector_group(self.models[model])
        await self.projectors[model]._project(group, self.models[model], partition)

    async def decide(self, file: FileId) -> None:
        await self.collector._mark(file, COLLECTOR.decide, VersionCollected)

    async def abandon_overdue(self, file: FileId) -> None:
        await self.collector._mark(file, COLLECTOR.abandon_overdue, VersionAbandoned)

    async def sweep(self, file: FileId) -> None:
        await self.collector._sweep_file(file)

    # --- until nothing is left ------------------------------------------------------------------

    async def consume(self, models: int = len(MODELS)) -> None:
        """Embeds all that is owed, for the first so many models."""
        for model, handler in enumerate(self.handlers[:models]):
            loop = self.loop(model, batch=256)
            while claimed := await loop._claim_and_read():
                lease, work = claimed
                if work is not None:
                    result = handler.work(work, nullcontext())
                    async with self.database.transaction(BY_INDEX) as conn:
                        await handler.settle(conn, lease, work, result)

    async def project_all(self, models: int = len(MODELS)) -> None:
        """Projects all events, for the first so many models."""
        for number, model in enumerate(self.models[:models]):
            while True:
                async with self.database.transaction(BY_INDEX) as conn:
                    behind = await leases.partitions_behind(conn, leases.projector_group(model))
                if not behind:
                    break
                for partition in behind:
                    await self.project(partition, number)


class Held(NamedTuple):
    """A range that a consumer has in hand."""

    lease: Lease
    work: Work


class Scene:
    """One file, and what the operations have in hand of it."""

    def __init__(self, collection: str, key: str) -> None:
        self.collection = collection
        self.key = key
        self.new_key = ""
        self.source_key = ""
        self.file = FileId(0)
        self.partition = 0
        self.held: Held | None = None
        self.again: Held | None = None
        self.sides: dict[Side, Collection] = {}
        self.letters: dict[Side, str] = {}
        """What each side's own content is called, so that two uploads differ."""

    def chunks(self, letters: str) -> list[Chunk]:
        """A chunk for each letter, unlike those of any other file but the source."""
        return [Chunk(f"{letter} of {self.key}") for letter in letters]

    def of(self, side: Side) -> Collection:
        """The collection as that side has it."""
        return self.sides[side]

    def anonymous(self, rows_: Sequence[tuple[Any, ...]]) -> "Rows":
        """The rows without the names that only this scene has."""
        return tuple(tuple(self._anonymous(value) for value in row) for row in rows_)

    def _anonymous(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return value.replace(self.new_key, "new").replace(self.source_key, "source").replace(self.key, "it")

    @property
    def range(self) -> Held:
        assert self.held is not None, "the scene has no lease"
        return self.held

    @property
    def range_again(self) -> Held:
        assert self.again is not None, "the scene has no second lease"
        return self.again


Rows = tuple[tuple[Any, ...], ...]


class Outcome(NamedTuple):
    """What became of a file, by contents: equal for two orders that nobody can tell apart."""

    searched: Rows
    versions: Rows
    targets: Rows
    dead_letters: Rows
    serving: str


class Stage:
    """A store of its own, and the sides that play on it: one that can be held, one that goes on."""

    def __init__(self, schema: str, gates: Gates, sides: Sequence[Side]) -> None:
        self.schema = schema
        self.gates = gates
        self.admin, self.held, self.other = sides
        self.spoiled = False
        self._made = 0
        self._ready: dict[frozenset[str], list[Scene]] = {}

    # --- making a scene -------------------------------------------------------------------------

    async def scene(self, facts: frozenset[str]) -> Scene:
        """A fresh file about which the facts hold."""
        lasting = facts & (OWN | {"source"})
        ready = self._ready.setdefault(lasting, [])
        if not ready:
            ready.extend(await self._make(lasting))
        scene = ready.pop()
        await self._set(scene, facts)
        return scene

    async def _make(self, lasting: frozenset[str]) -> list[Scene]:
        """Files whose third version is active."""
        scenes: list[Scene] = []
        for _ in range(AT_ONCE // 6 if lasting & OWN else AT_ONCE):
            self._made += 1
            name = f"docs {self._made}" if lasting & OWN else SHARED
            scenes.append(Scene(name, f"file {self._made}"))
            for side in (self.admin, self.held, self.other):
                scenes[-1].sides[side] = await side.store.collection(name, MODELS[0], keep_last=1)
            if "second model" in lasting:
                await scenes[-1].of(self.admin).add_model(MODELS[1])
            await self._keys_beside(scenes[-1])
            if "source" in lasting:
                await scenes[-1].of(self.admin).append(scenes[-1].source_key, scenes[-1].chunks("ef"))
        for letters in ("ab", "bc", "cd"):
            for scene in scenes:
                await scene.of(self.admin).append(scene.key, scene.chunks(letters))
            await self.admin.consume()
        await self.admin.project_all()
        return scenes[::-1]

    async def _set(self, scene: Scene, facts: frozenset[str]) -> None:
        collection = scene.of(self.admin)
        await collection.append(scene.key, scene.chunks("def"))
        async with self.admin.database.transaction() as conn:
            found = await conn.execute(
                "SELECT file, partition FROM files WHERE collection = %s AND key = %s",
                [collection.row.collection, scene.key],
            )
            row = await found.fetchone()
            assert row is not None
            scene.file, scene.partition = FileId(row[0]), row[1]
        if facts & LEASED:
            await self._lease(scene, facts)
        elif facts & {"embedded", "projected"} and "queued" not in facts:
            await self.admin.consume()
        if "projected" in facts and not facts & (LEASED | {"queued"}):
            await self.admin.project_all()
        if facts & {"pinned", "decided"}:
            await collection.pin(scene.key, 2)
        if "rolled back" in facts:
            await collection.rollback(scene.key, 2)
        if "decided" in facts:
            await self.admin.decide(scene.file)
        if "decided" in facts and "pinned" not in facts:
            await collection.unpin(scene.key, 2)
        if "overdue" in facts:
            await self._open(scene)

    async def _keys_beside(self, scene: Scene) -> None:
        """Keys for other files of the scene, of the same partition: with two, one in two falls there."""
        async with self.admin.database.transaction() as conn:
            scene.new_key, scene.source_key = await rows.fetch_values(
                conn,
                "SELECT %(key)s || ' ' || i FROM generate_series(1, 99) AS i"
                " WHERE hashtextextended(%(key)s || ' ' || i, %(collection)s) & 1"
                " = hashtextextended(%(key)s, %(collection)s) & 1 LIMIT 2",
                {"key": scene.key, "collection": scene.of(self.admin).row.collection},
            )

    async def _lease(self, scene: Scene, facts: frozenset[str]) -> None:
        scene.held = await self._claimed(1 if facts & {"alone", "tried", "dead"} else 2)
        if facts & {"tried", "dead"}:
            scene.held = await self._tried(scene.held)
        if "dead" in facts:
            await self.admin.settle(scene.held, "no")
        if "again" in facts:
            await self.admin.loop(
                batch=9
            )._claim_and_read()  # the rest of the range, if any: lost with its consumer
            await scene.of(self.admin).append(scene.key, scene.chunks("def"))
            scene.again = await self._claimed(2)
        if "expired" in facts:
            async with self.admin.database.transaction() as conn:
                await conn.execute(
                    "UPDATE leases SET expires = '-infinity'"
                    " WHERE consumer_group = %(group)s AND partition = %(partition)s AND lo = %(lo)s",
                    scene.held.lease.key,
                )

    async def _claimed(self, batch: int) -> Held:
        claimed = await self.admin.loop(batch=batch)._claim_and_read()
        assert claimed is not None, "there was nothing to claim"
        assert claimed[1] is not None, "the range owed nothing"
        return Held(*claimed)

    async def _tried(self, held: Held) -> Held:
        """The range after two failures."""
        async with self.admin.database.transaction() as conn:
            await conn.execute(
                "UPDATE leases SET attempts = 2"
                " WHERE consumer_group = %(group)s AND partition = %(partition)s AND lo = %(lo)s",
                held.lease.key,
            )
        return Held(msgspec.structs.replace(held.lease, attempts=2), held.work)

    async def _open(self, scene: Scene) -> None:
        """An open version of one batch, whose deadline is over."""
        drafts = list(
            Segmenter().feed([prepare(chunk, headings=True, position=0) for chunk in scene.chunks("gaxyz")])
        )
        write = scene.of(self.admin)._write(scene.key, None, None, None)
        async with self.admin.database.transaction() as conn:
            state = await versions.lock(conn, scene.of(self.admin).row.collection, scene.key)
            version = await versions.open_version(conn, state.file, b"{}")
        await _add_batch(self.admin.database, write, state.file, version, drafts)

    # --- what became of it ----------------------------------------------------------------------

    async def drain(self, scene: Scene) -> None:
        """Everybody finishes, and what is lost with its process expires."""
        async with self.admin.database.transaction() as conn:
            await conn.execute(
                "UPDATE leases l SET owner = NULL, expires = '-infinity' WHERE NOT EXISTS (SELECT FROM done d"
                " WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo))"
            )
        models = 1 if scene.collection == SHARED else len(MODELS)
        await self.admin.consume(models)
        await self.admin.project_all(models)

    async def outcome(self, scene: Scene) -> Outcome:
        """What a search, a history and a list of dead letters would say now."""
        collection = scene.of(self.admin)
        await collection._read_models()
        params = {
            "collection": collection.row.collection,
            "keys": [scene.key, scene.new_key, scene.source_key],
        }
        async with self.admin.database.transaction() as conn:
            searched = [
                row
                for model in await catalog.models_of(conn, collection.row.collection)
                for row in await _tuples(
                    conn, _SEARCHED.format(model.active_table, model.search_table, model.model), params
                )
            ]
            return Outcome(
                searched=scene.anonymous(searched),
                versions=scene.anonymous(await _tuples(conn, _VERSIONS, params)),
                targets=scene.anonymous(await _tuples(conn, _TARGETS, params)),
                dead_letters=scene.anonymous(await _tuples(conn, _DEAD_LETTERS, params)),
                serving=collection.model_names[0],
            )


_SEARCHED = """
SELECT f.key, a.version, c.content
FROM {} m
JOIN {} s USING (chunk_id)
JOIN chunks c USING (chunk_id)
JOIN files f ON f.file = m.file
JOIN active_versions a ON a.file = m.file AND a.model = {}
WHERE f.collection = %(collection)s AND f.key = ANY (%(keys)s)
ORDER BY 1, 2, 3"""

_VERSIONS = """
SELECT f.key, v.version, v.state, v.tombstone, v.pinned, v.chunks
FROM versions v
JOIN files f USING (file)
WHERE f.collection = %(collection)s AND f.key = ANY (%(keys)s) AND v.state NOT IN ('open', 'abandoned')
ORDER BY 1, 2"""

_TARGETS = """
SELECT key, target FROM files WHERE collection = %(collection)s AND key = ANY (%(keys)s) ORDER BY 1"""

_DEAD_LETTERS = """
SELECT c.content, d.state
FROM dead_letters d
JOIN chunks c USING (chunk_id)
JOIN files f ON f.file = c.file
WHERE f.collection = %(collection)s AND f.key = ANY (%(keys)s)
ORDER BY 1, 2"""


async def _tuples(conn: AsyncConnection[Any], statement: str, params: dict[str, Any]) -> list[Any]:
    return await (await conn.execute(statement.encode(), params)).fetchall()


# --- a stage is put up --------------------------------------------------------------------------


@asynccontextmanager
async def staged(dsn: str, changes: Mapping[str, tuple[str, str]] | None = None) -> AsyncIterator[Stage]:
    """A stage on a fresh schema, whose functions have gates; `changes` leaves a line of some out."""
    schema = f"test_{uuid4().hex[:16]}"
    dsn = make_conninfo(dsn, options="-c synchronous_commit=off")
    migrate.apply(Dsn(dsn), schema)
    try:
        async with await Database.open(dsn, schema=schema) as plain:
            await set_partitions(plain, PARTITIONS)
            await _make_models(plain)
            async with plain.connection() as keeper:
                gates = Gates(keeper)
                await gates.build(_STAGED_FROM_ONE | dict(changes or {}))
                known = await _known(plain)
                admin = Side(_quiet(plain), Watch(gates), known)
                async with _side(plain, gates, known) as held, _side(plain, gates, known) as other:
                    yield Stage(schema, gates, [admin, held, other])
    finally:
        drop_schema(dsn, schema)


async def _make_models(database: Database) -> None:
    store = ChunkStore(database)
    for number, model in enumerate(MODELS):
        await store.collection(f"made for model {number}", model)
    await store.collection(SHARED, MODELS[0], keep_last=1)


async def _known(database: Database) -> list[ModelRow]:
    async with database.transaction() as conn:
        return sorted(await catalog.every_model(conn), key=lambda row: row.model)


def _quiet(database: Database) -> ChunkStore:
    store = ChunkStore(database)
    store.hints = Silent()  # type: ignore[assignment]
    return store


async def _configure(watch: Watch, plain: Database, connection: AsyncConnection[Any]) -> None:
    connections._watch(connection, plain._dsn, plain._session)
    await watch.configure(connection)


@asynccontextmanager
async def _side(plain: Database, gates: Gates, known: Sequence[ModelRow]) -> AsyncIterator[Side]:
    watch = Watch(gates)
    pool = AsyncConnectionPool[AsyncConnection[Any]](
        plain._dsn.conninfo(),
        connection_class=watch.connections(),
        kwargs={"autocommit": True, "context": plain._session.adapters},
        configure=partial(_configure, watch, plain),
        min_size=1,
        max_size=4,
        open=False,
    )
    await pool.open()
    async with Database(plain.schema, plain._dsn, plain._session, pool) as database:
        yield Side(_quiet(database), watch, known)
