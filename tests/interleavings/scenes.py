"""Scenes: files in just the state that two operations meet over, and the stage that they are made on.

A scene's file has the versions 1 (a b), 2 (b c), 3 (c d, active) and 4 (d e f, the target), of which facts
that the operations need make more: a lease in hand, a dead letter, a version that is decided on.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from chunkstore import catalog, rows, versions
from chunkstore.append import _add_batch
from chunkstore.chunks import prepare
from chunkstore.collection import Collection
from chunkstore.manifests import Segmenter
from chunkstore.model import Chunk, FileId
from projections.rebuild import _Rebuild
from tests.interleavings.gates import Gates
from tests.interleavings.sides import MODELS, Held, Side

SHARED = "docs"
"""The collection of the files that need none for themselves."""
AT_ONCE = 24
"""Files that are made at once, which spares time."""
FULL = 500
"""Files of a stage on which no other test begins."""

LEASED = frozenset({"lease", "again", "alone", "tried", "dead"})
"""Facts that need chunks which are not embedded yet."""
OWN = frozenset({"own collection", "second model"})
"""Facts that need a collection for the file alone."""

Rows = tuple[tuple[Any, ...], ...]


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

    def anonymous(self, rows_: Sequence[tuple[Any, ...]]) -> Rows:
        """The rows without the names that only this scene has."""
        return tuple(tuple(self._anonymous(value) for value in row) for row in rows_)

    def _anonymous(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = {self.new_key: "new", self.source_key: "source", self.key: "it"}
        for name in sorted(names, key=len, reverse=True):  # one may begin as another does
            value = value.replace(name, names[name])
        return value

    @property
    def range(self) -> Held:
        assert self.held is not None, "the scene has no lease"
        return self.held

    @property
    def range_again(self) -> Held:
        assert self.again is not None, "the scene has no second lease"
        return self.again


class Stage:
    """A store of its own, and the sides that play on it: one that can be held, one that goes on."""

    def __init__(self, schema: str, gates: Gates, sides: Sequence[Side]) -> None:
        self.schema = schema
        self.gates = gates
        self.admin, self.held, self.other = sides
        self.spoiled = False
        self._made = 0
        self._ready: dict[frozenset[str], list[Scene]] = {}

    @property
    def is_full(self) -> bool:
        """Whether there are so many files that whoever looks at all of them takes long."""
        return self._made > FULL

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
        if "killed rebuild" in facts:
            await self._begin_rebuild(scene)

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
        hashing = scene.of(self.admin).row.hashing
        drafts = list(
            Segmenter().feed([prepare(chunk, hashing, position=0) for chunk in scene.chunks("gaxyz")])
        )
        write = scene.of(self.admin)._write(scene.key, None, None, None)
        async with self.admin.database.transaction() as conn:
            state = await versions.lock(conn, scene.of(self.admin).row.collection, scene.key)
            version = await versions.open_version(conn, state.file, b"{}")
        await _add_batch(self.admin.database, write, state.file, version, drafts)

    async def _begin_rebuild(self, scene: Scene) -> None:
        """Tables beside the live ones, which nobody who holds the rebuild's lock fills any more."""
        row = scene.of(self.admin).row
        async with self.admin.database.transaction() as conn:
            model = next(m for m in await catalog.models_of(conn, row.collection) if m.name == MODELS[0].name)
        job = _Rebuild(self.admin.store, row.collection, scene.collection, model)
        await job._beside.begin()
        await job._copy()

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
