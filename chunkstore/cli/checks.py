"""Commands that check and repair: verify, rebuild, scrub."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chunkstore.cli.app import CHECK, command
from chunkstore.cli.codes import Exit
from chunkstore.cli.options import HERE, Json, Where
from chunkstore.cli.output import print_json, print_line, print_pairs, print_table, say, working

if TYPE_CHECKING:
    from projections.verify import Check, VerifyReport


@command(group=CHECK, sort_key=1)
async def verify(
    *,
    replay: Annotated[
        bool,
        Parameter(
            negative="--no-replay",
            show_default=False,
            help="Compare with a replay of the log too (the default): takes longest.",
        ),
    ] = True,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Check every invariant of the store on its data, while it is used; nothing is changed.

    The exit code is 1 where one is broken, and the rows that break it are printed.

    For example:

        chunkstore verify
        chunkstore verify --json | jq '.checks[] | select(.ok | not)'
    """
    from chunkstore.cli.shapes import Verified
    from projections import verify as checks

    async with where.store() as store:
        with working("verifying"):
            report = await checks.verify(store, replay=replay)
    if json:
        print_json(Verified.of(report))
    else:
        _show(report)
    return Exit.OK if report.ok else Exit.PROBLEM


@command(group=CHECK, sort_key=2)
async def rebuild(
    collection: Annotated[str, Parameter(help="The collection.")],
    /,
    *,
    model: Annotated[
        str | None,
        Parameter(
            name=("--model", "-m"), help="The name of one of its models; the serving one unless given."
        ),
    ] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Rebuild a collection's search tables and index beside the live ones, and swap them in.

    Searches go on meanwhile. Nothing is embedded again.

    For example:

        chunkstore rebuild notes
    """
    from chunkstore.cli.models import name_of
    from projections import rebuild as rebuilding

    async with where.store() as store:
        with working(f"rebuilding {collection}"):
            report = await rebuilding.rebuild(store, collection, None if model is None else name_of(model))
    if json:
        print_json(report)
        return
    print_pairs(
        [
            ("collection", report.collection),
            ("model", report.model),
            ("active chunks", f"{report.active_chunks:,}"),
            ("vectors copied", f"{report.vectors_copied:,}"),
            ("index", "built" if report.indexed else "none: small enough to need none"),
        ]
    )


@command(group=CHECK, sort_key=4)
async def scrub(*, json: Json = False, where: Where = HERE) -> None:
    """Remove from the server's files what was erased; until then its bytes lie in free space of the tables.

    Every table that holds content or vectors is written anew, and locked meanwhile: searches and writers
    wait. The embedded server's write-ahead log is cleared too. Backups are yours to remove.

    For example:

        chunkstore erase customers/4711.md --yes && chunkstore scrub
    """
    from chunkstore.scrub import scrub as write_anew

    async with where.store() as store:
        with working("scrubbing"):
            report = await write_anew(store.database)
    if json:
        print_json(report)
        return
    log = "is cleared too" if report.log else "is not cleared: only the embedded server's is"
    say(f"{len(report.tables)} tables are written anew; the write-ahead log {log}")


def _show(report: "VerifyReport") -> None:
    print_table(
        ("invariant", "check", "result"),
        [(check.invariant, check.name.replace("_", " "), _result(check)) for check in report.checks],
    )
    for check in report.broken:
        print_line(f"\ninvariant {check.invariant} is broken: {check.description}")
        for violation in check.violations:
            print_line(f"  {violation.row}")
        if check.count > len(check.violations):
            print_line(f"  … and {check.count - len(check.violations):,} more rows")
    broken = len(report.broken)
    say("every invariant holds" if report.ok else f"broken: {broken} of {len(report.checks)} checks")


def _result(check: "Check") -> str:
    if not check.ok:
        return f"BROKEN, {check.count:,} rows"
    if check.skipped:
        return f"skipped: {check.skipped}"
    return f"ok, {check.count:,} to clear" if check.count else "ok"
