"""Commands on one file's versions: delete, rollback, pin, unpin, erase."""

from typing import TYPE_CHECKING

from chunkstore.cli.app import FILES, command
from chunkstore.cli.codes import Exit
from chunkstore.cli.options import DEFAULT, InCollection, Json, Key, VersionNumber, Yes
from chunkstore.cli.output import print_json, say

if TYPE_CHECKING:
    from chunkstore.model import Version


@command(group=FILES, sort_key=2)
async def delete(key: Key, /, *, json: Json = False, where: InCollection = DEFAULT) -> None:
    """Delete a file: searches lose it, its history stays until it is collected.

    For example:

        chunkstore delete docs/old.md
    """
    async with where.files() as files:
        version = await files.delete(key)
    done = "was deleted already" if version.unchanged else "is deleted"
    _show(version, f"{key} {done}, by version {version.number}", json=json)


@command(group=FILES, sort_key=3)
async def rollback(
    key: Key, to: VersionNumber, /, *, json: Json = False, where: InCollection = DEFAULT
) -> None:
    """Make an earlier version the target, until the file's next version.

    For example:

        chunkstore rollback docs/guide.md 3
    """
    async with where.files() as files:
        version = await files.rollback(key, to)
    _show(version, f"the target of {key} is version {to}", json=json)


@command(group=FILES, sort_key=4)
async def pin(
    key: Key, version: VersionNumber, /, *, json: Json = False, where: InCollection = DEFAULT
) -> None:
    """Keep a version whatever the collection's retention says.

    For example:

        chunkstore pin contracts/2024.md 7
    """
    async with where.files() as files:
        pinned = await files.pin(key, version)
    _show(pinned, f"version {version} of {key} is pinned", json=json)


@command(group=FILES, sort_key=5)
async def unpin(
    key: Key, version: VersionNumber, /, *, json: Json = False, where: InCollection = DEFAULT
) -> None:
    """Give a pinned version back to the retention.

    For example:

        chunkstore unpin contracts/2024.md 7
    """
    async with where.files() as files:
        unpinned = await files.unpin(key, version)
    _show(unpinned, f"version {version} of {key} is not pinned any more", json=json)


@command(group=FILES, sort_key=6)
async def erase(key: Key, /, *, yes: Yes = False, json: Json = False, where: InCollection = DEFAULT) -> Exit:
    """Remove every trace of a file at once: all versions, content, metadata, vectors and its key.

    It cannot be taken back. Backups and the server's write-ahead log hold copies until they are recycled.

    For example:

        chunkstore erase customers/4711.md --yes
    """
    from chunkstore.cli.asking import confirmed
    from chunkstore.cli.shapes import Erased

    async with where.files() as files:
        versions = len(await files.history(key))
        counted = "1 version" if versions == 1 else f"{versions} versions"
        if not await confirmed(f"Erase {key} with {counted} from {files.name}, for ever?", yes=yes):
            say("nothing was erased")
            return Exit.PROBLEM
        await files.erase(key)
    if json:
        print_json(Erased(files.name, key, versions))
    else:
        say(f"{key} is erased")
    return Exit.OK


def _show(version: "Version", text: str, *, json: bool) -> None:
    if json:
        print_json(version)
    else:
        say(text)
