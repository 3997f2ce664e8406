"""The command that does everything in one process, for one machine."""

from typing import Annotated

from cyclopts import Parameter

from chunkstore.cli.app import WORK, command
from chunkstore.cli.options import HERE, MODELS, Batch, Device, Where
from chunkstore.cli.output import progress, say


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
    where: Where = HERE,
) -> None:
    """Run all that one machine needs: consumer and projector for every model, and the collector.

    Models of collections that are created meanwhile are taken up too. Runs until Ctrl-C or SIGTERM, then
    finishes the ranges in hand.

    For example:

        chunkstore up
        chunkstore up --data ./store --collect-every 600
    """
    import anyio

    from chunkstore.cli.interrupts import stop_event
    from chunkstore.cli.models import name_of
    from chunkstore.cli.workers import Workers
    from projections.collector import collect_for_ever

    async with where.store() as store:
        given = {name_of(spec): spec for spec in model or ()}
        stop = stop_event()

        async def collect() -> None:
            await collect_for_ever(store, every=collect_every, stop=stop)

        say("embedding, activating and collecting until Ctrl-C or SIGTERM")
        with progress(counted=False) as bar:
            workers = Workers(store, bar, given, batch=batch, device=device, stop=stop)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(workers.run)
                tasks.start_soon(collect)
    say(f"stopped: {workers.embedded:,} chunks embedded, {workers.activated:,} switches")
