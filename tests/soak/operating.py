"""The operator of the soak: adds models, makes another one serve, retries, rebuilds, verifies, under way."""

from contextlib import suppress
from functools import partial

import anyio

from chunkstore.collection import Collection
from chunkstore.errors import ChunkstoreError
from chunkstore.store import ChunkStore
from projections.rebuild import rebuild
from projections.verify import verify
from tests.faults.models import MODEL
from tests.faults.processes import COLLECTION
from tests.soak.acting import Actor
from tests.soak.contents import FIRST, uploaded
from tests.soak.moods import OTHER

PACE_SECONDS = 0.5
SIDE = "side-"
"""What the names of collections begin with that get their second model under way."""


class Operator(Actor):
    """One operator; `run` works until the stop."""

    def __init__(self, store: ChunkStore, name: str, stop: anyio.Event) -> None:
        super().__init__(name, stop)
        self._store = store

    async def run(self) -> None:
        # Again where a predecessor was killed over it: a call that was cut off is finished by the next one.
        for row in await self.persistently(self._store.collections):
            await self.add_model(await self.persistently(partial(self._store.collection, row.name)))
        collection = await self.persistently(lambda: self._store.collection(COLLECTION))
        steps = {
            partial(self.retry, collection): 10,
            partial(self.rebuild, COLLECTION): 2,
            partial(self.serve, collection): 3,
            self.verify: 2,
            self.side_collection: 0.5,
        }
        while not self.stop.is_set():
            (step,) = self.dice.choices(list(steps), list(steps.values()))
            with suppress(ChunkstoreError):  # of reading what to do next; written down
                await step()
            with anyio.move_on_after(PACE_SECONDS):
                await self.stop.wait()

    async def add_model(self, collection: Collection) -> None:
        """Twice the same call is as good as once, so it is made until it is answered."""
        call = partial(collection.add_model, OTHER)
        begun = self.journal.begin("add a model", collection.name)
        await self.call(begun, partial(self.persistently, call))

    async def retry(self, collection: Collection) -> None:
        """Takes every dead letter back."""
        for letter in await self.persistently(collection.dead_letters):
            begun = self.journal.begin("retry a dead letter", letter.key)
            await self.call(begun, partial(collection.retry, letter.chunk_id, letter.model))

    async def rebuild(self, collection: str) -> None:
        model = self.dice.choice([MODEL.name, OTHER.name])

        async def call() -> None:
            await rebuild(self._store, collection, model)

        await self.call(self.journal.begin("rebuild", collection), call)

    async def serve(self, collection: Collection) -> None:
        model = self.dice.choice([MODEL.name, OTHER.name])
        await self.call(self.journal.begin("serve", collection.name), partial(collection.serve, model))

    async def verify(self) -> None:
        begun = self.journal.begin("verify", "")

        async def call() -> None:
            broken = (await verify(self._store, replay=False)).broken
            assert not broken, f"{[(check.name, check.violations[:3]) for check in broken]}"

        await self.call(begun, call)

    async def side_collection(self) -> None:
        """A new collection, to which the other model is added while the first one embeds it."""
        name = f"{SIDE}{self.journal.next}"
        made = await self.persistently(lambda: self._store.collection(name, MODEL))
        for key in ("a.md", "b.md"):
            await self.persistently(
                partial(made.append, key, uploaded(key, FIRST), metadata={"stamp": FIRST})
            )
        await self.add_model(made)
