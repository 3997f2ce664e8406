"""How waiting for a version ends: active, in time, or with the reason why it never will be."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.errors import NeverActive, UnknownModel, WaitTimeout
from chunkstore.model import Version
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from tests.faults.models import BAD, Tripping
from tests.store.fix_pipeline import append, docs, drain
from tests.store.fix_store import store

__all__ = ["docs", "store"]


async def test_waiting_returns_when_the_version_or_a_later_one_is_active(
    store: ChunkStore, docs: Collection
) -> None:
    first = await append(docs, "a", "text one")
    second = await append(docs, "a", "text two")
    await drain(store)
    await docs.wait_until_active(first, timeout=0.1)
    await docs.wait_until_active(second, timeout=0.1)


async def test_waiting_lasts_until_the_switch(store: ChunkStore, docs: Collection) -> None:
    version = await append(docs, "a", "text one")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: docs.wait_until_active(version, timeout=30))
        tasks.start_soon(drain, store)
    assert (await docs.history("a"))[0].active


async def test_waiting_without_a_consumer_ends_in_time_and_says_what_may_be_missing(docs: Collection) -> None:
    version = await append(docs, "a", "text one")
    with pytest.raises(WaitTimeout, match="is a consumer and a projector running"):
        await docs.wait_until_active(version, timeout=0.05)


async def test_waiting_for_a_model_lasts_until_searches_of_that_one_see_the_version(
    store: ChunkStore, docs: Collection
) -> None:
    version = await append(docs, "a", "text one")
    await docs.add_model("hashing:16")
    await drain(store)
    await docs.wait_until_active(version, timeout=0.1)
    with pytest.raises(WaitTimeout):
        await docs.wait_until_active(version, timeout=0.1, model="hashing-16")
    with pytest.raises(UnknownModel, match="other-model"):
        await docs.wait_until_active(version, timeout=0.1, model="other-model")


async def collected(store: ChunkStore, docs: Collection, version: Version) -> None:
    for number in range(4):
        await append(docs, "a", f"text of version {number}")
    await collect(store)


async def erased(store: ChunkStore, docs: Collection, version: Version) -> None:
    await docs.erase("a")


async def rolled_back(store: ChunkStore, docs: Collection, version: Version) -> None:
    await docs.rollback("a", 1)


async def given_up(store: ChunkStore, docs: Collection, version: Version) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no")

    await EmbeddingConsumer(store, Tripping(fail)).run(drain=True)


@pytest.mark.parametrize(
    ("happens", "reason"),
    [(collected, "collected"), (erased, "erased"), (rolled_back, "target"), (given_up, "dead letter")],
)
async def test_waiting_for_what_can_not_become_active_is_an_error_at_once(
    store: ChunkStore, docs: Collection, happens: Callable[..., Any], reason: str
) -> None:
    await append(docs, "a", "text")
    version = await append(docs, "a", "text", BAD)
    with pytest.RaisesGroup(pytest.RaisesExc(NeverActive, match=reason)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: docs.wait_until_active(version, timeout=30))
            await happens(store, docs, version)


async def test_waiting_after_a_rollback_waits_for_the_old_version_and_not_the_later_one_that_is_still_active(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "text one")
    await append(docs, "a", "text two")
    await drain(store)
    first = await docs.rollback("a", 1)
    with pytest.raises(WaitTimeout):
        await docs.wait_until_active(first, timeout=0.05)
    await drain(store)
    await docs.wait_until_active(first, timeout=0.05)


async def test_a_version_of_an_erased_file_is_never_active_whatever_its_key_holds_now(
    store: ChunkStore, docs: Collection
) -> None:
    version = await append(docs, "a", "mine")
    await docs.erase("a")
    await append(docs, "a", "somebody else's")
    await drain(store)
    with pytest.raises(NeverActive, match="erased with its file"):
        await docs.wait_until_active(version, timeout=5)


async def test_who_does_not_want_to_wait_has_one_look(store: ChunkStore, docs: Collection) -> None:
    version = await append(docs, "a", "text one")
    with pytest.raises(WaitTimeout):
        await docs.wait_until_active(version, timeout=0)
    await drain(store)
    await docs.wait_until_active(version, timeout=0)
