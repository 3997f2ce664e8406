"""Commands that make things: the schema, collections."""

from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from chunkstore.cli.app import SET_UP, collection_command, command
from chunkstore.cli.options import HERE, Json, Where
from chunkstore.cli.output import print_json, print_table, say

ModelSpec = Annotated[
    str,
    Parameter(
        name=("--model", "-m"),
        help="minilm, hashing:D, sentence-transformers:PATH, or openai:NAME for an embedding service.",
    ),
]


@command(group=SET_UP, sort_key=1)
async def migrate(
    *,
    partitions: Annotated[
        int | None,
        Parameter(help="Partitions of the log, 16 unless given; only while the store is empty."),
    ] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Make the store, or bring its schema up to date.

    Safe to run at any time, also from several machines at once; does nothing where nothing is to do.
    Makes the extension vector where the role may.

    For example:

        chunkstore migrate
        chunkstore migrate --schema team_a --partitions 64
    """
    from chunkstore.cli.partitions import checked_partitions, set_partitions
    from chunkstore.migrate import migrate as apply

    count = None if partitions is None else checked_partitions(partitions)
    applied = await apply(where.dsn, schema=where.schema, data=where.data)
    if count is not None:
        async with where.store() as store:
            await set_partitions(store.database, count)
    if json:
        print_json(applied)
    else:
        say(f"applied {', '.join(applied)}" if applied else "nothing to do: the schema is up to date")


@collection_command(name="create")
async def create_collection(
    name: Annotated[str, Parameter(help="The collection's name.")],
    /,
    *,
    model: ModelSpec = "minilm",
    keep_last: Annotated[
        int | None, Parameter(help="Versions of each file that are kept: 3 unless given.")
    ] = None,
    keep_for: Annotated[
        timedelta | None, Parameter(help="Keep younger versions too: 30d, 12h, 1w2d.", show_default=False)
    ] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Create a collection with its model; one that is there already must have the same model.

    For example:

        chunkstore collection create notes
        chunkstore collection create code --model hashing:256 --keep-last 5 --keep-for 30d
    """
    from chunkstore.cli.models import load
    from chunkstore.settings import KEEP_LAST

    kept = KEEP_LAST if keep_last is None else keep_last

    async with where.store() as store:
        collection = await store.collection(name, await load(model), keep_last=kept, keep_for=keep_for)
    if json:
        from chunkstore.cli.shapes import ListedCollection

        print_json(ListedCollection.of(collection.row, collection.model_names))
    else:
        say(f"the collection {name!r} is there, with the model {collection.model_names[0]!r}")


@collection_command(name="list")
async def list_collections(*, json: Json = False, where: Where = HERE) -> None:
    """List the collections, their models and what they keep.

    For example:

        chunkstore collection list --json
    """
    async with where.store() as store:
        rows = await store.collections()
        listed = [(row, (await store.collection(row.name)).model_names) for row in rows]
    if json:
        from chunkstore.cli.shapes import ListedCollection

        print_json([ListedCollection.of(row, models) for row, models in listed])
        return
    if not listed:
        say("no collection yet: chunkstore collection create NAME, or chunkstore ingest PATH")
        return
    print_table(
        ("collection", "models", "keeps", "and for"),
        [(row.name, ", ".join(models), f"last {row.keep_last}", row.keep_for) for row, models in listed],
    )
