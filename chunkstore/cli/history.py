"""Commands that look at one file: its history, and the chunks of a version."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chunkstore.cli.app import SEARCH, command
from chunkstore.cli.options import DEFAULT, FLAG, InCollection, Json, Key
from chunkstore.cli.output import print_json, print_json_rows, print_table, say

if TYPE_CHECKING:
    from datetime import datetime

    from chunkstore.model import Version


@command(group=SEARCH, sort_key=3)
async def history(key: Key, /, *, json: Json = False, where: InCollection = DEFAULT) -> None:
    """Show a file's versions, oldest first: when each was committed, its chunks, and what it is now.

    Searches see the active version. The target is the one that will be active when all of its chunks are
    embedded. Of a collected version only the number is left.

    For example:

        chunkstore history docs/guide.md
        chunkstore history docs/guide.md --json | jq '.[] | select(.active).number'
    """
    async with where.files() as files:
        versions = await files.history(key)
    if json:
        print_json(versions)
        return
    print_table(
        ("version", "committed", "chunks", "reused", "added", "now"),
        [(v.number, _minute(v.committed_at), v.chunks, v.reused, v.added, _now(v)) for v in versions],
    )
    target = next((v for v in versions if v.target), None)
    if target is not None and not target.active:
        say(f"version {target.number} waits for its embeddings: `chunkstore status` says how many are left")


@command(group=SEARCH, sort_key=4)
async def chunks(
    key: Key,
    /,
    *,
    version: Annotated[
        int | None, Parameter(name=("--version", "-v"), help="A version's number; the latest unless given.")
    ] = None,
    full: Annotated[bool, FLAG, Parameter(help="Print whole chunks.")] = False,
    json: Json = False,
    where: InCollection = DEFAULT,
) -> None:
    """Show the chunks of a version in order: where each stands in the file, and its text.

    A chunk's id is the same in every version that has it. It is what `dead-letters` names it by.

    For example:

        chunkstore chunks docs/guide.md
        chunkstore chunks docs/guide.md --version 3 --full
        chunkstore chunks docs/guide.md --json | jq '.[].content'
    """
    async with where.files() as files:
        rows = files.chunks(key, version)
        if json:
            await print_json_rows(rows)
            return
        from chunkstore.cli.citing import show_stored

        count = 0
        async for chunk in rows:
            show_stored(chunk, full=full)
            count += 1
    which = "the latest version" if version is None else f"version {version}"
    say(f"{which} of {key} has {_counted(count)}")


def _now(version: "Version") -> str:
    notes = [version.state] if version.state != "committed" else []
    notes += ["deleted"] if version.tombstone else []
    notes += [name for name in ("active", "target", "pinned") if getattr(version, name)]
    notes += [f"{_counted(version.discarded)} discarded"] if version.discarded else []
    return ", ".join(notes)


def _minute(moment: "datetime | None") -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _counted(chunks: int) -> str:
    return "1 chunk" if chunks == 1 else f"{chunks:,} chunks"
