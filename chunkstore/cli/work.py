"""Commands that do the slow work: consume, project, gc."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chunkstore.cli.app import WORK, command
from chunkstore.cli.codes import Exit
from chunkstore.cli.options import FLAG, HERE, MODELS, Batch, Device, Drain, Json, Where
from chunkstore.cli.output import print_json, print_table, progress, say

if TYPE_CHECKING:
    from chunkstore.models import Model
    from consumers.embedding import ConsumeReport
    from projections.collector import CollectReport
    from projections.projector import ProjectReport


@command(group=WORK, sort_key=2)
async def consume(
    *,
    model: Annotated[
        list[str] | None,
        MODELS,
        Parameter(
            help="Embed with this model alone (may be repeated); with all of the store's unless given."
        ),
    ] = None,
    drain: Drain = False,
    batch: Batch = None,
    device: Device = None,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Embed what the log asks for; any number of these may run, on any machine.

    Runs until Ctrl-C or SIGTERM, then finishes the range in hand and gives back what it has only claimed.
    With `--drain` it ends when nothing is left. The exit code is 1 where it gave a chunk up, or could not
    open one of the store's models.

    For example:

        chunkstore consume --drain
        chunkstore consume --model minilm --device cuda --batch 512
    """
    from chunkstore.cli import slow
    from chunkstore.cli.interrupts import stop_event
    from chunkstore.cli.models import load_all

    async with where.store() as store:
        models, are_all = await load_all(store, model, device)
        stop = stop_event()
        _say_running("embedding with", [one.name for one in models], drain=drain)
        with progress(counted=drain) as bar:

            async def embed(one: "Model") -> "ConsumeReport":
                return await slow.embed(store, one, bar, drain=drain, batch=batch, stop=stop)

            reports = await slow.for_each(models, embed)
    if json:
        print_json({one.name: report for one, report in zip(models, reports, strict=True)})
    else:
        print_table(
            ("model", "embedded", "cut short", "copied", "stored", "ranges", "halved", "retried", "given up"),
            [
                (
                    one.name,
                    r.embedded,
                    r.truncated,
                    r.copied,
                    r.stored,
                    r.ranges,
                    r.halved,
                    r.retried,
                    r.dead_letters,
                )
                for one, r in zip(models, reports, strict=True)
            ],
        )
    if drain and stop.is_set():
        return Exit.TERMINATED
    given_up = any(report.dead_letters for report in reports)
    return Exit.OK if are_all and not given_up else Exit.PROBLEM


@command(group=WORK, sort_key=3)
async def project(
    *,
    model: Annotated[
        list[str] | None,
        MODELS,
        Parameter(help="Project for the model of this name alone (may be repeated); for all unless given."),
    ] = None,
    drain: Drain = False,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Switch files to their new versions as these are complete, and build the search indexes.

    Runs until Ctrl-C or SIGTERM; with `--drain` until it has read the whole log. Any number may run.

    For example:

        chunkstore project --drain
    """
    from chunkstore.cli import slow
    from chunkstore.cli.interrupts import stop_event
    from chunkstore.cli.models import name_of, names

    async with where.store() as store:
        projected = [name_of(given) for given in model] if model else await names(store)
        stop = stop_event()
        _say_running("activating for", projected, drain=drain)
        with progress(counted=False) as bar:

            async def project(name: str) -> "ProjectReport":
                return await slow.project(store, name, bar, drain=drain, stop=stop)

            reports = await slow.for_each(projected, project)
    if json:
        print_json(dict(zip(projected, reports, strict=True)))
    else:
        print_table(
            ("model", "events", "switches", "rows removed", "indexes built"),
            [
                (name, r.events, r.activated, r.removed, r.indexes_built)
                for name, r in zip(projected, reports, strict=True)
            ],
        )
    return Exit.TERMINATED if drain and stop.is_set() else Exit.OK


@command(group=WORK, sort_key=4)
async def gc(
    *,
    collection: Annotated[
        str | None, Parameter(name=("--collection", "-c"), help="One collection alone; all unless given.")
    ] = None,
    dry_run: Annotated[bool, FLAG, Parameter(help="Print what would go, and why.")] = False,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Collect the versions that nothing keeps, and the chunks that only they named.

    Kept are each file's last versions by its collection's retention, and what is pinned, open, latest,
    target or active. It may be interrupted at any time, and run again.

    For example:

        chunkstore gc --dry-run
        chunkstore gc --collection notes
    """
    from projections.collector import CollectReport, collect

    async with where.store() as store:
        with progress(counted=False) as bar:
            row = bar.add_task("collecting", total=None)

            def show(report: CollectReport) -> None:
                text = f"collecting: {report.collected:,} versions, {report.swept:,} chunks"
                bar.update(row, description=text)

            report = await collect(store, collection=collection, dry_run=dry_run, on_progress=show)
    if json:
        print_json(report.would_collect if dry_run else report)
    elif dry_run:
        _show_collectable(report)
    else:
        print_table(
            ("versions collected", "abandoned", "chunks removed", "left for later", "indexes rebuilt"),
            [(report.collected, report.abandoned, report.swept, report.skipped, report.indexes_rebuilt)],
        )


def _show_collectable(report: "CollectReport") -> None:
    if not report.would_collect:
        say("nothing would go")
        return
    print_table(
        ("collection", "key", "version", "chunks", "committed", "why it would go"),
        [
            (row.collection, row.key, row.version, row.chunks, _minute(row.committed_at), row.reason)
            for row in report.would_collect
        ],
    )


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _say_running(what: str, models: list[str], *, drain: bool) -> None:
    how = "until nothing is left" if drain else "until Ctrl-C or SIGTERM"
    say(f"{what} {', '.join(models)}, {how}")
