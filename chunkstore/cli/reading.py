"""Commands that look: search, status."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chunkstore.cli.app import SEARCH, command
from chunkstore.cli.options import HERE, CollectionName, Device, Json, Where
from chunkstore.cli.output import age, print_json, print_line, print_table, say, size

if TYPE_CHECKING:
    from chunkstore.model import Hits
    from chunkstore.status import ModelStatus, Status


@command(group=SEARCH, sort_key=1)
async def search(
    text: Annotated[str, Parameter(help="What to look for.")],
    /,
    *,
    k: Annotated[int, Parameter(name="-k", help="How many chunks, at most.")] = 10,
    collection: CollectionName = "default",
    model: Annotated[
        str | None,
        Parameter(name=("--model", "-m"), help="A model of the collection; its serving one unless given."),
    ] = None,
    full: Annotated[bool, Parameter(negative="", show_default=False, help="Print whole chunks.")] = False,
    device: Device = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Search the active versions: the nearest chunks, each with key, version and place to cite it by.

    For example:

        chunkstore search "how do leases expire?"
        chunkstore search "retry policy" -k 3 --collection code --json
    """
    from chunkstore.cli.citing import show_hit
    from chunkstore.inputs import checked_k, checked_key

    checked_k(k)
    checked_key(text, "text", 65_536)
    hits = await _found(where, collection, text, k, model, device)
    if json:
        from chunkstore.cli.shapes import SearchResult

        print_json(SearchResult(query=text, collection=collection, exact=hits.exact, hits=list(hits)))
        return
    if not hits:
        say("nothing is active in this collection yet: chunkstore status says what it waits for")
    for rank, hit in enumerate(hits, 1):
        show_hit(rank, hit, full=full)


async def _found(
    where: Where, collection: str, text: str, k: int, model: str | None, device: str | None
) -> "Hits":
    """What the search finds; the query is embedded on the processor unless a device is asked for."""
    from chunkstore.cli.models import load, spec_for

    async with where.store() as store:
        spec = model or spec_for((await store.collection(collection)).model_names[0])
        opened = await load(spec, device or "cpu")  # an accelerator's library takes seconds to start
        searched = await store.collection(collection, opened)
        return await searched.search(text, k, model=opened.name)


@command(group=SEARCH, sort_key=2)
async def status(*, json: Json = False, where: Where = HERE) -> None:
    """Show what the store holds, what waits, how far behind each consumer group is, and what failed.

    For example:

        chunkstore status
        chunkstore status --json | jq '.groups[] | select(.lag > 0)'
    """
    from chunkstore import status as standing

    async with where.store() as store:
        found = await standing.status(store)
    if json:
        print_json(found)
    else:
        _show_status(found)


def _show_status(status: "Status") -> None:
    print_line(
        f"schema {status.schema}: {status.offsets:,} offsets in {status.partitions} partitions,"
        f" {size(status.sizes.total)} on disk"
    )
    if not status.collections:
        say("no collection yet: chunkstore collection create NAME, or chunkstore ingest PATH")
        return
    print_line()
    print_table(
        ("collection", "files", "deleted", "versions", "being written", "chunks"),
        [(c.name, c.files, c.deleted, c.versions, c.open, c.chunks) for c in status.collections],
    )
    print_line()
    print_table(
        ("collection", "model", "active", "waiting", "since", "failed", "discarded", "index", "on disk"),
        [
            (
                c.name,
                f"{m.name} (serving)" if m.serving else m.name,
                m.active,
                m.waiting,
                age(m.stale_since),
                m.failed,
                m.discarded,
                _index(m),
                size(m.bytes),
            )
            for c in status.collections
            for m in c.models
        ],
    )
    print_line()
    print_table(
        ("group", "model", "lag", "in flight", "leases", "oldest"),
        [
            (
                "embedding" if g.kind == "shared" else "projector",
                g.model,
                g.lag,
                g.in_flight,
                g.leases,
                age(g.oldest),
            )
            for g in status.groups
        ],
    )
    failed = sum(model.failed for collection in status.collections for model in collection.models)
    if failed:
        say(f"{failed:,} given up: `chunkstore dead-letters list` says why")


def _index(model: "ModelStatus") -> str:
    notes = [model.index if model.index != "none" else "none (exact)"]
    notes += ["back-filling"] if model.backfilling else []
    notes += ["rebuilding"] if model.rebuilding else []
    return ", ".join(notes)
