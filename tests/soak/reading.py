"""A reader of the soak: searches for everything all the time, under every model, and checks what it gets."""

import anyio

from chunkstore.collection import Collection
from chunkstore.errors import ChunkstoreError
from chunkstore.model import Hit
from tests.faults.models import MODEL
from tests.faults.searching import Checker
from tests.faults.stamped import broken
from tests.soak.acting import Actor
from tests.soak.contents import COUNTED, EVERYTHING, STEADY, is_own
from tests.soak.journal import Looked
from tests.soak.moods import OTHER

PACE_SECONDS = 0.05
ALWAYS = [*STEADY, *COUNTED]


class SoakReader(Actor):
    """One reader; `run` works until the stop."""

    def __init__(self, collection: Collection, name: str, stop: anyio.Event) -> None:
        super().__init__(name, stop)
        self._collection = collection
        self._checkers: dict[str | None, Checker] = {}

    async def run(self) -> None:
        while not self.stop.is_set():
            # None: the one that serves, which changes under way.
            model = self.dice.choice([None, MODEL.name, OTHER.name])
            try:
                hits = await self.persistently(
                    lambda model=model: self._collection.search(
                        "file chunk upload", k=EVERYTHING, model=model
                    )
                )
            except ChunkstoreError:  # written down; the other model is not there yet, or it is the stop
                await anyio.sleep(PACE_SECONDS)
                continue
            self.journal.write(Looked(len({hit.key for hit in hits}), self.check(model, hits)))
            await anyio.sleep(PACE_SECONDS)

    def check(self, model: str | None, hits: list[Hit]) -> list[str]:
        """What is wrong with a search under a model."""
        own = [hit for hit in hits if is_own(hit.key)]
        rest = [hit for hit in hits if not is_own(hit.key)]
        faults = broken(own, sorted({hit.key for hit in own}))
        checker = self._checkers.get(model)
        if checker is None:
            if model == OTHER.name and {hit.key for hit in rest} != {*ALWAYS}:
                return faults  # it was added a moment ago: what it shows once, it shows for ever
            checker = self._checkers.setdefault(model, Checker(ALWAYS))
        before = len(checker.faults)
        checker.check(rest)
        return [f"{fault} (model {model})" for fault in [*faults, *checker.faults[before:]]]
