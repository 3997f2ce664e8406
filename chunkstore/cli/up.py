"""The command that does everything in one process, for one machine."""

from typing import Annotated

from cyclopts import Parameter

from chunkstore.cli.app import WORK, command
from chunkstore.cli.options import HERE, MODELS, Batch, Device, Json, Where
from chunkstore.cli.output import print_json, print_pairs, progress, say


@command(group=WORK, sort_key=1)
async def up(
    *,
    model: Annotated[
        list[str] | None,
        MODELS,
        Parameter(
            help="A model that its stored name cannot open: sentence-transformers:PATH, openai:NAME,url=URL"
            " (may be repeated)."
        ),
    ] = None,
    batch: Batch = None,
    collect_every: Annotated[float, Parameter(help="Seconds between two collections.")] = 60.0,
    device: Device = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Run all that one machine needs: consumer and projector for every model, and the collector.

    Models of collections that are created meanwhile are taken up too. Runs until Ctrl-C or SIGTERM, then
    finishes the ranges in hand and says what it did.

    For example:

        chunkstore up
        chunkstore up --data ./store --collect-every 600
    """
    import anyio

    from chunkstore.cli.interrupts import stop_event
    from chunkstore.cli.models import name_of
    from chunkstore.cli.shapes import Ran
    from chunkstore.cli.workers import Workers
    from projections.collector import CollectReport, collect_for_ever

    async with where.store() as store:
        given = {name_of(spec): spec for spec in model or ()}
        stop = stop_event()
        collected = CollectReport()

        async def collect() -> None:
            nonlocal collected
            collected = await collect_for_ever(store, every=collect_every, stop=stop)

        say("embedding, activating and collecting until Ctrl-C or SIGTERM")
        with progress(counted=False) as bar:
            workers = Workers(store, bar, given, batch=batch, device=device, stop=stop)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(workers.run)
                tasks.start_soon(collect)
    ran = Ran(workers.embedded, workers.activated, collected.collected, collected.swept)
    if json:
        print_json(ran)
        return
    print_pairs(
        [
            ("chunks embedded", ran.embedded),
            ("files switched", ran.switched),
            ("versions collected", ran.collected),
            ("chunks removed", ran.removed),
        ]
    )
