"""Fixtures that give a stage to meet on, and make a few chunks do what thousands would."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from chunkstore import append as appending
from chunkstore import manifests, versions
from consumers import embedding
from projections import active, collector, repack
from tests.interleavings.meetings import broken_when_collected
from tests.interleavings.scenes import Stage
from tests.interleavings.stages import staged


class Stages:
    """One stage for many tests; a new one after a test that broke it, and where many files are on it."""

    def __init__(self, dsn: str, stack: AsyncExitStack) -> None:
        self._dsn = dsn
        self._stack = stack
        self._stage: Stage | None = None

    async def get(self) -> Stage:
        if self._stage is None or self._stage.spoiled or self._stage.is_full:
            await self.end()
            self._stage = await self._stack.enter_async_context(staged(self._dsn))
        return self._stage

    async def end(self) -> None:
        """Collects what the tests left, and finds nothing broken."""
        async with self._stack:
            if self._stage is not None and not self._stage.spoiled:
                assert await broken_when_collected(self._stage) == []


@pytest.fixture(scope="module")
async def stages(dsn: str) -> AsyncIterator[Stages]:
    """Gives stages; each is collected and verified in the end."""
    given = Stages(dsn, AsyncExitStack())
    yield given
    await given.end()


@pytest.fixture
async def stage(stages: Stages) -> Stage:
    """A store of its own, with a side that can be held at any statement and one that goes on."""
    return await stages.get()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks fill a segment, six a batch; four of a new file are sent early; nothing may wait.

    So nobody waits for a time to pass, and what takes a lease over meets whoever has it.
    """
    monkeypatch.setattr(manifests, "SEGMENT_MIN", 2)
    monkeypatch.setattr(manifests, "SEGMENT_MAX", 2)
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 6)
    monkeypatch.setattr(appending, "SENT_EARLY_FROM", 4)
    monkeypatch.setattr(repack, "_BRIEFLY", b"")  # it waits for whoever is held, as all others do
    monkeypatch.setattr(versions, "_DEADLINE", timedelta(0))
    monkeypatch.setattr(active, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(embedding, "_TWIN_SECONDS", 0.0)
    monkeypatch.setattr(embedding, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(collector, "_PAUSE", 0)
    monkeypatch.setattr(collector, "_LOOKS", 3)
