"""What each operation does, as whoever does it calls it."""

from contextlib import suppress
from typing import Any

from chunkstore import catalog, leases, rows
from chunkstore.errors import Conflict
from chunkstore.model import Version
from chunkstore.settings import MAX_K
from projections.beside import BESIDE
from projections.indexes import drop_snapshot
from projections.rebuild import drop_abandoned
from projections.rebuild import rebuild as rebuild_projection
from projections.repack import Repack
from projections.verify import verify as verify_store
from tests.interleavings.scenes import Scene
from tests.interleavings.sides import MODELS, Side


def _told(version: Version) -> tuple[int, bool]:
    return version.number, version.unchanged


# --- writers ------------------------------------------------------------------------------------


async def append(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.key, scene.chunks("abefg" + scene.letters[side])))


async def append_the_same(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.key, scene.chunks("def")))


async def append_expecting(side: Side, scene: Scene) -> Any:
    return _told(
        await scene.of(side).append(scene.key, scene.chunks("f" + scene.letters[side]), expected_version=4)
    )


async def append_with_key(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.key, scene.chunks("eh"), idempotency_key="once"))


async def append_first(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.new_key, scene.chunks("ef")))


async def append_many_first(side: Side, scene: Scene) -> Any:
    chunks = scene.chunks("efgh" + scene.letters[side])
    return _told(await scene.of(side).append(scene.new_key, chunks))


async def stream(side: Side, scene: Scene) -> Any:
    await scene.of(side).append(scene.key, scene.chunks("abegxyzuvw" + scene.letters[side]))


async def delete(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).delete(scene.key))


async def roll_back(side: Side, scene: Scene) -> Any:
    await scene.of(side).rollback(scene.key, 2)


async def pin(side: Side, scene: Scene) -> Any:
    await scene.of(side).pin(scene.key, 2)


async def unpin(side: Side, scene: Scene) -> Any:
    await scene.of(side).unpin(scene.key, 2)


async def erase(side: Side, scene: Scene) -> Any:
    await scene.of(side).erase(scene.key)


async def erase_source(side: Side, scene: Scene) -> Any:
    await scene.of(side).erase(scene.source_key)


# --- consumers ----------------------------------------------------------------------------------


async def claim(side: Side, scene: Scene) -> Any:
    await side.loop()._claim_and_read()


async def renew(side: Side, scene: Scene) -> Any:
    async with side.database.transaction() as conn:
        await leases.renew(conn, scene.range.lease, seconds=60)


async def release(side: Side, scene: Scene) -> Any:
    async with side.database.transaction() as conn:
        await leases.release(conn, scene.range.lease)


async def complete(side: Side, scene: Scene) -> Any:
    await side.settle(scene.range)


async def complete_again(side: Side, scene: Scene) -> Any:
    await side.settle(scene.range_again)


async def fail(side: Side, scene: Scene) -> Any:
    await side.settle(scene.range, "no")


async def retry(side: Side, scene: Scene) -> Any:
    await scene.of(side).retry(scene.range.work.owed[0].chunk_id)


async def discard(side: Side, scene: Scene) -> Any:
    await scene.of(side).discard(scene.range.work.owed[0].chunk_id)


# --- projector and collector --------------------------------------------------------------------


async def project(side: Side, scene: Scene) -> Any:
    await side.project(scene.partition)


async def decide(side: Side, scene: Scene) -> Any:
    await side.decide(scene.file)


async def sweep(side: Side, scene: Scene) -> Any:
    await side.sweep(scene.file)


async def abandon(side: Side, scene: Scene) -> Any:
    await side.abandon_overdue(scene.file)


# --- models, rebuild, readers -------------------------------------------------------------------


async def add_model(side: Side, scene: Scene) -> Any:
    await scene.of(side).add_model(MODELS[1])


async def serve(side: Side, scene: Scene) -> Any:
    await scene.of(side).serve(MODELS[1].name)


async def rebuild(side: Side, scene: Scene) -> Any:
    await rebuild_projection(side.store, scene.collection, MODELS[0].name)


async def repack(side: Side, scene: Scene) -> Any:
    row = scene.of(side).row
    async with side.database.transaction() as conn:
        model = next(m for m in await catalog.models_of(conn, row.collection) if m.name == MODELS[0].name)
    async with side.database.guard() as guard:
        if await rows.fetch_value(guard, BESIDE.try_begin, {"table": model.search_table}):
            await drop_snapshot(guard)
            with suppress(Conflict):  # taken for abandoned by "drop a killed rebuild"
                await Repack(side.database, row.collection, model).run()


async def drop_killed_rebuild(side: Side, scene: Scene) -> Any:
    await drop_abandoned(side.database)


async def verify(side: Side, scene: Scene) -> Any:
    report = await verify_store(side.store)
    assert report.ok, [(check.name, check.violations[:3]) for check in report.broken]


async def search(side: Side, scene: Scene) -> Any:
    (vector,) = MODELS[0].embed([scene.key])
    hits = await scene.of(side).search(vector, k=MAX_K, model=MODELS[0].name)
    seen = sorted((hit.version, hit.ordinal, hit.content) for hit in hits if hit.key == scene.key)
    assert len({version for version, _, _ in seen}) <= 1, f"versions are mixed: {seen}"
    assert [ordinal for _, ordinal, _ in seen] == list(range(len(seen))) or scene.held, f"a part: {seen}"
