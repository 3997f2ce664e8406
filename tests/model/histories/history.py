"""One random history: a store and the model side by side, compared after each step."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant
from hypothesis.strategies._internal.featureflags import FeatureFlags

from chunkstore.errors import ChunkstoreError
from projections import collector
from projections.verify import verify
from tests.model.histories.arena import PARTITIONS, Arena
from tests.model.histories.expected import Expected, Found
from tests.model.histories.observed import compare, observe, read
from tests.store.rules.fix_interleave import DIMENSIONS, World

E = TypeVar("E")
T = TypeVar("T")

KEYS = {"a": 0, "b": 0, "c": 1}
"""The files by the partition that each is in: two share one."""


class History(RuleBasedStateMachine):
    """What every actor has: the store, the model, and the comparison."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        if arena.every_rule:
            # Else each history lacks about half the kinds of steps, and few histories reach little.
            self._rules_strategy.enabled_rules_strategy = st.just(FeatureFlags())
        self.arena = arena
        self.is_sound = True
        self.swept = False
        self.expected = Expected({}, keep_last=1)

    def begin(self, keep_last: int) -> None:
        self.is_sound = False
        self.world: World = self.arena.begin(keep_last)
        self.database = self.world.store.database
        self.collector = collector._Run(self.world.store, collector.CollectReport(), collector._silent)
        self.keys = {name: self.call(self._key_in, name, partition) for name, partition in KEYS.items()}
        self.expected = Expected({self.keys[name]: number for name, number in KEYS.items()}, keep_last)
        self.is_sound = True

    async def _key_in(self, name: str, partition: int) -> str:
        return await self.world.value(
            "SELECT min(key) FROM (SELECT %(name)s || i AS key FROM generate_series(1, 30) AS i) AS keys"
            " WHERE (hashtextextended(key, %(collection)s) & 2147483647) %% %(partitions)s = %(partition)s",
            name=name,
            collection=self.world.number,
            partitions=PARTITIONS,
            partition=partition,
        )

    # --- both sides of a step -------------------------------------------------------------------

    def call(self, act: Callable[..., Awaitable[T]], *args: Any) -> T:
        self.is_sound = False
        return self.arena.call(act, *args)

    def both(
        self, expected: Callable[[], E], act: Callable[..., Awaitable[T]], *args: Any
    ) -> tuple[E, T] | None:
        """What the model and the store answer; None where both refuse, which must be for the same reason."""
        refused: ChunkstoreError | None = None
        wanted: E | None = None
        try:
            wanted = expected()
        except ChunkstoreError as error:
            refused = error
        try:
            answer = self.call(act, *args)
        except ChunkstoreError as error:
            if type(error) is not type(refused):
                raise
            return None
        assert refused is None, f"{type(refused).__name__} was to be raised, and {answer!r} was returned"
        return wanted, answer  # pyright: ignore[reportReturnType]

    # --- what is judged after each step ---------------------------------------------------------

    @invariant()
    def judge(self) -> None:
        self.compare()
        self.read_and_verify()
        self.is_sound = True

    def compare(self) -> None:
        """Asserts that the store holds what the model says, and that a search finds what it says."""
        compare(self.expected, self.call(observe, self.world), swept=self.swept)
        self.swept = False
        assert self.call(self._found) == self.expected.searchable(), "what a search finds"

    async def _found(self) -> list[Found]:
        hits = await self.world.collection.search(np.ones(DIMENSIONS), k=1000)
        return sorted((hit.key, hit.version, hit.ordinal, hit.content) for hit in hits)

    def read_and_verify(self) -> None:
        """Asserts what readers are given, and every check of `verify`."""
        for key, file in self.expected.files.items():
            assert self.call(read, self.world, key) == file.history(), f"what is read of {key}"
        if self.arena.verifies:
            report = self.call(verify, self.world.store)
            assert report.ok, report.broken
