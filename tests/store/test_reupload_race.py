"""What the model is given in vain: the race of the example for a second, and the bound driven by hand."""

import anyio
import pytest

from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from examples.reupload_race.ledger import InVain, Ledger, Waste
from examples.reupload_race.race import Outcome, race_all
from examples.reupload_race.uploads import texts_of
from tests.faults.asking import until
from tests.faults.models import MODEL, Held


@pytest.fixture(scope="module")
async def outcomes() -> dict[str, Outcome]:
    return await race_all(seconds=1.0)


@pytest.mark.slow
async def test_the_usual_pipeline_loses_what_the_race_is_about(outcomes: dict[str, Outcome]) -> None:
    usual = outcomes["usual, text in job"]
    assert usual.violations > 0
    assert usual.half > 0
    assert usual.waste.not_read.texts > 0


@pytest.mark.slow
async def test_here_nothing_is_violated_half_read_or_embedded_when_it_could_be_known_to_be_in_vain(
    outcomes: dict[str, Outcome],
) -> None:
    ours = outcomes["chunkstore"]
    assert ours.uploads > 0
    assert ours.waste.given > 0
    assert ours.reads > 0
    assert (ours.violations, ours.half, ours.waste.not_read.texts) == (0, 0, 0)


@pytest.mark.slow
async def test_here_a_worker_embeds_at_most_the_batches_in_flight_of_an_upload_that_was_replaced(
    outcomes: dict[str, Outcome],
) -> None:
    ours = outcomes["chunkstore"]
    assert ours.waste.waiting.most <= ours.batch
    assert ours.waste.in_model.most <= ours.batch


def test_the_ledger_tells_by_its_read_what_could_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    monkeypatch.setattr("examples.reupload_race.ledger.now", lambda: next(times))
    ledger = Ledger()
    ledger.uploaded("a", 1, order=1)
    ledger.uploaded("a", 3, order=3)
    ledger.uploaded("a", 2, order=2)  # replaced before its commit returned
    first, second, third = texts_of("a", 1), texts_of("a", 2), texts_of("a", 3)
    for worker, read, given, texts in [
        (0, 2.0, 2.5, first[:4]),
        (0, 2.0, 4.0, first[4:7]),
        (1, 4.0, 4.5, [*first[7:9], *second[:1]]),
        (1, 4.0, 4.5, third),
    ]:
        ledger.read(texts, read)
        ledger.called(worker, texts, given)
    assert ledger.waste() == Waste(
        given=4 + 3 + 3 + 30, not_read=InVain(3, 2), waiting=InVain(3, 3), in_model=InVain(4, 4)
    )


async def test_of_a_replaced_version_each_consumer_pays_for_the_batch_in_the_model_and_the_next_alone(
    store: ChunkStore,
) -> None:
    docs = await store.collection("docs", model=MODEL)
    await docs.append("a", [Chunk(f"first {number}") for number in range(80)])
    model, stop = Held(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: EmbeddingConsumer(store, model, batch=8).run(stop=stop))
        await until(store, "SELECT count(*) >= 4 FROM leases")
        with anyio.move_on_after(1):  # whoever reads further has a second to show it
            await until(store, "SELECT count(*) > 4 FROM leases")
        await docs.append("a", [Chunk(f"second {number}") for number in range(80)])
        model.go.set()
        await until(store, "SELECT sum(lacking) = 0 FROM waiting")
        stop.set()
    assert sorted({len(call) for call in model.calls}) == [8]
    assert len([text for text in model.texts if text.startswith("first")]) == 4 * 8
