"""The command that brings files in."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chunkstore.cli.app import FILES, command
from chunkstore.cli.asking import check_can_ask
from chunkstore.cli.codes import Exit
from chunkstore.cli.options import HERE, CollectionName, Device, Json, Where, Yes
from chunkstore.cli.output import complain, print_json, print_pairs, say

if TYPE_CHECKING:
    from chunkstore.cli.shapes import Ingested


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
            help="A new collection's model, minilm unless given; or hashing:D, sentence-transformers:PATH.",
        ),
    ] = None,
    prune: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Delete files of the collection that have gone from the folders.",
        ),
    ] = False,
    wait: Annotated[
        bool, Parameter(negative="", show_default=False, help="Embed here, and end when searches see it all.")
    ] = False,
    device: Device = None,
    yes: Yes = False,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Bring files in: each that has changed becomes a new version, the others stay as they are.

    Reads plain text, Markdown and source code. A file that cannot be read is listed at the end, and the
    exit code is then 1. A collection that is not there yet is created. The chunks are embedded by
    `chunkstore up`, by `chunkstore consume` and `chunkstore project`, or here with `--wait`.

    For example:

        chunkstore ingest docs/ README.md --wait
        chunkstore ingest 'src/**/*.py' --collection code --model hashing:256
        chunkstore ingest docs/ --prune --yes --json
    """
    if prune and not yes:
        check_can_ask("may --prune delete what has gone?")
    from chunkstore.cli import ingesting, slow
    from chunkstore.cli.shapes import Ingested

    async with where.store() as store:
        files = await ingesting.find_or_create(store, collection, model)
        report = await ingesting.bring_in(files, paths, prune=prune, yes=yes)
        embedded = await ingesting.make_active(store, files, model, device) if wait else 0
        waiting = await slow.waiting_chunks(store, collection)
    result = Ingested.of(collection, report, embedded=embedded, waiting=waiting)
    if json:
        print_json(result)
    else:
        _show(result)
    return Exit.PROBLEM if result.failed else Exit.OK


def _show(result: "Ingested") -> None:
    print_pairs(
        [
            ("files added", result.added),
            ("files updated", result.updated),
            ("files unchanged", result.unchanged),
            ("files deleted", result.deleted),
            ("files failed", len(result.failed)),
            ("chunks added", result.chunks_added),
            ("chunks reused", result.chunks_reused),
            ("chunks embedded", result.embedded),
        ]
    )
    if result.waiting:
        say(f"{result.waiting:,} chunks wait to be embedded: run `chunkstore up`, or ingest with --wait")
    for failure in result.failed:
        complain(f"{failure.path}: {failure.reason}")
