"""The command that brings files in."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from chunkstore.cli.app import FILES, command
from chunkstore.cli.asking import check_can_ask
from chunkstore.cli.codes import Exit
from chunkstore.cli.options import HERE, CollectionName, Device, Json, Where, Yes
from chunkstore.cli.output import complain, print_json, print_pairs, say

if TYPE_CHECKING:
    from chunkstore.cli.shapes import Ingested

_AGAIN = Group("Files that were ingested before", sort_key=1)
_ONE_FILE = Group("What one file may cost", sort_key=2)

_SHOWN_FAILURES = 5


@command(group=FILES, sort_key=1)
async def ingest(
    paths: Annotated[list[str], Parameter(help="Files, folders and globs (quoted: 'src/**/*.py').")],
    /,
    *,
    collection: CollectionName = "default",
    model: Annotated[
        str | None,
        Parameter(
            name=("--model", "-m"),
            help="A new collection's model, minilm unless given; or hashing:D, sentence-transformers:PATH,"
            " openai:NAME for an embedding service.",
        ),
    ] = None,
    wait: Annotated[
        bool, Parameter(negative="", show_default=False, help="Embed here, and end when searches see it all.")
    ] = False,
    dry_run: Annotated[
        bool, Parameter(negative="", show_default=False, help="Say what would happen, and write nothing.")
    ] = False,
    prune: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            group=_AGAIN,
            help="Delete files of the collection that have gone from the folders.",
        ),
    ] = False,
    check: Annotated[
        str,
        Parameter(
            group=_AGAIN,
            help="What tells that a file has changed: its size, its time, and where the time differs the hash"
            " of its content; or none, to read every file.",
        ),
    ] = "size,mtime,hash",
    rechunk: Annotated[
        bool | None,
        Parameter(
            negative="--no-rechunk",
            show_default=False,
            group=_AGAIN,
            help="Whether files that have not changed are chunked anew where the chunker or their parser has;"
            " asked at a terminal unless given.",
        ),
    ] = None,
    file_seconds: Annotated[
        float, Parameter(group=_ONE_FILE, help="Seconds after which the reading of a file is given up.")
    ] = 60.0,
    file_memory: Annotated[
        int, Parameter(group=_ONE_FILE, help="MiB of memory that the reading of a file may take.")
    ] = 1024,
    device: Device = None,
    yes: Yes = False,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Bring files in: each that has changed becomes a new version, the others stay as they are.

    A file whose size and time are as they were is not read again. A file that cannot be read is listed at
    the end with the reason, and the exit code is then 1; it is 4 where files were left as an earlier chunker
    or parser made them, because nobody could be asked. A collection that is not there yet is created. The
    chunks are embedded by `chunkstore up`, by `chunkstore consume` and `chunkstore project`, or here with
    `--wait`.

    For example:

        chunkstore ingest docs/ README.md --wait
        chunkstore ingest 'src/**/*.py' --collection code --model hashing:256
        chunkstore ingest docs/ --prune --dry-run
        chunkstore ingest docs/ --prune --yes --json
    """
    if prune and not yes and not dry_run:
        check_can_ask("may --prune delete what has gone?")
    from chunkstore.cli import ingesting
    from chunkstore.cli.shapes import Ingested
    from chunkstore.status import waiting_chunks

    asked = ingesting.Request(
        paths, ingesting.checks_of(check), ingesting.limits_of(file_seconds, file_memory), prune, rechunk, yes
    )
    async with where.store() as store:
        if dry_run:
            report = await ingesting.rehearse(await ingesting.find(store, collection), asked)
            result = Ingested.of(collection, report, dry_run=True)
        else:
            files = await ingesting.find_or_create(store, collection, model)
            if wait:
                report = await ingesting.bring_in_and_embed(store, files, asked, model, device)
            else:
                report = await ingesting.bring_in(files, asked)
            waiting = await waiting_chunks(store, collection)
            result = Ingested.of(collection, report, waiting=waiting)
    if json:
        print_json(result)
    else:
        _show(result, report.failures())
    if result.failed:
        return Exit.PROBLEM
    return Exit.OUTDATED if result.outdated and rechunk is None and not dry_run else Exit.OK


def _show(result: "Ingested", failures: dict[str, list[str]]) -> None:
    would_be = " that would be" if result.dry_run else ""
    rows: list[tuple[str, object]] = [
        (f"files{would_be} added", result.added),
        (f"files{would_be} updated", result.updated),
        ("files unchanged", result.unchanged),
        (f"files{would_be} deleted", result.deleted),
        ("files failed", len(result.failed)),
    ]
    if result.outdated:
        rows.append(("files of an earlier chunker or parser", result.outdated))
    if result.without_text:
        rows.append(("files without any text", result.without_text))
    rows += [(f"left out: {reason}", count) for reason, count in sorted(result.left_out.items())]
    if not result.dry_run:
        rows += [
            ("chunks added", result.chunks_added),
            ("chunks reused", result.chunks_reused),
            ("chunks embedded", result.embedded),
        ]
    print_pairs(rows)
    if result.dry_run:
        say("nothing was written: this was a dry run")
    if result.waiting:
        waits = "1 chunk waits" if result.waiting == 1 else f"{result.waiting:,} chunks wait"
        say(f"{waits} to be embedded: run `chunkstore up`, or ingest with --wait")
    _show_failures(failures)


def _show_failures(failures: dict[str, list[str]]) -> None:
    """The first few of each reason: a folder can hold thousands of files that fail alike."""
    for reason, paths in failures.items():
        for path in paths[:_SHOWN_FAILURES]:
            complain(f"{path}: {reason}")
        if len(paths) > _SHOWN_FAILURES:
            complain(f"… and {len(paths) - _SHOWN_FAILURES:,} more: {reason} (all with --json)")
