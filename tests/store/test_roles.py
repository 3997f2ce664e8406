"""Each kind of process has a role of its own, and goes through its whole work with that role alone."""

from chunkstore.model import Chunk
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from tests.faults.models import MODEL
from tests.store.fix_roles import Stores, Users


async def test_each_process_goes_through_its_work_with_its_own_role_alone(
    users: Users, stores: Stores
) -> None:
    owner = await stores.of("owner")
    await owner.collection("docs", model=MODEL, keep_last=1)
    written = await (await stores.of("writer")).collection("docs")
    await written.append("a", [Chunk(f"text {i}") for i in range(300)])
    await written.append("b", [Chunk("other")])
    version = await written.append("a", [Chunk(f"text {i}") for i in range(5)])
    await EmbeddingConsumer(await stores.of("consumer"), MODEL).run(drain=True)
    projected = await Projector(await stores.of("projector"), MODEL.name).run(drain=True)
    assert projected.activated
    read = await (await stores.of("reader")).collection("docs")
    await read.wait_until_active(version)
    hits = await read.search(MODEL.embed(["text 3"])[0], k=100)
    assert {hit.key for hit in hits} == {"a", "b"}
    collected = await collect(await stores.of("collector"))
    assert (collected.collected, collected.swept) == (1, 295)
