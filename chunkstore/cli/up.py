"""The command that does everything in one process, for one machine."""

from typing import Annotated

from cyclopts import Parameter

from chunkstore.cli.app import WORK, command
from chunkstore.cli.codes import Exit
from chunkstore.cli.options import HERE, MODELS, Batch, Device, Drain, Json, Where
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
    drain: Drain = False,
    batch: Batch = None,
    collect_every: Annotated[float, Parameter(help="Seconds between two collections.")] = 60.0,
    device: Device = None,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Run all that one machine needs: consumer and projector for every model, and the collector.

    Models of collections that are created meanwhile are taken up too. Runs until Ctrl-C or SIGTERM, then
    finishes the ranges in hand and says what it did. With `--drain` it embeds and activates what there is,
    collects once, and ends.

    For example:

        chunkstore up
        chunkstore up --data ./store --collect-every 600
        chunkstore up --drain
    """
    import anyio

    from chunkstore.cli.interrupts import stop_event
    from chunkstore.cli.models import name_of
    from chunkstore.cli.shapes import Ran
    from chunkstore.cli.workers import Workers
    from projections.collector import CollectReport, collect, collect_for_ever

    async with where.store() as store:
        given = {name_of(spec): spec for spec in model or ()}
        stop = stop_event()
        collected = CollectReport()

        async def collect_meanwhile() -> None:
            nonlocal collected
            collected = await collect_for_ever(store, every=collect_every, stop=stop)

        until = "nothing is left" if drain else "Ctrl-C or SIGTERM"
        say(f"embedding, activating and collecting until {until}")
        with progress(counted=drain) as bar:
            workers = Workers(store, bar, given, drain=drain, batch=batch, device=device, stop=stop)
            async with anyio.create_task_group() as tasks:
                if not drain:
                    tasks.start_soon(collect_meanwhile)
                await workers.run()
        if drain and not stop.is_set():
            collected = await collect(store)
    ran = Ran(
        embedded=workers.embedded,
        given_up=workers.given_up,
        switched=workers.activated,
        collected=collected.collected,
        removed=collected.swept,
    )
    if json:
        print_json(ran)
    else:
        print_pairs(
            [
                ("chunks embedded", ran.embedded),
                ("chunks given up", ran.given_up),
                ("files switched", ran.switched),
                ("versions collected", ran.collected),
                ("chunks removed", ran.removed),
            ]
        )
    if drain and stop.is_set():
        return Exit.TERMINATED
    return Exit.PROBLEM if drain and (ran.given_up or workers.idle) else Exit.OK
