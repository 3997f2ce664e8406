"""The options that several commands share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from chunkstore.collection import Collection
    from chunkstore.store import ChunkStore

_PLACE = Group("Where the store is", sort_key=10)

FLAG = Parameter(negative="", show_default=False)
MODELS = Parameter(name=("--model", "-m"), negative="")

Json = Annotated[bool, FLAG, Parameter(name="--json", help="Print JSON.")]
Drain = Annotated[bool, FLAG, Parameter(help="End when nothing is left to do.")]
Yes = Annotated[bool, FLAG, Parameter(name=("--yes", "-y"), help="Do not ask.")]
CollectionName = Annotated[str, Parameter(name=("--collection", "-c"), help="The collection.")]
Key = Annotated[str, Parameter(help="The file's key, as hits show it.")]
VersionNumber = Annotated[int, Parameter(help="The version's number.")]
Batch = Annotated[
    int | None,
    Parameter(
        help="Chunks of one lease, and so of one call of the model; unless given 256, up to 1,024 where the"
        " model is fast."
    ),
]
Device = Annotated[str | None, Parameter(help="cpu, cuda or mps; the best there is unless given.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Where the store is; an option beats its environment variable, which beats the default."""

    dsn: Annotated[
        str | None,
        Parameter(
            group=_PLACE,
            help="The Postgres to use, else CHUNKSTORE_DSN, else the embedded server. Other users of the"
            " machine can see it here; the variable they cannot.",
        ),
    ] = field(default=None, repr=False)
    schema: Annotated[
        str | None,
        Parameter(group=_PLACE, help="The schema, else CHUNKSTORE_SCHEMA, else chunkstore."),
    ] = None
    data: Annotated[
        str | None,
        Parameter(
            group=_PLACE,
            help="The embedded server's folder, else CHUNKSTORE_DATA, else one in the user's data folder.",
        ),
    ] = None

    @asynccontextmanager
    async def store(self) -> "AsyncIterator[ChunkStore]":
        """The store, open for the length of the block."""
        import anyio

        from chunkstore.store import ChunkStore

        store = await ChunkStore.open(self.dsn, schema=self.schema, data=self.data)
        try:
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()


@Parameter(name="*")
@dataclass(frozen=True)
class InCollection(Where):
    """Where the store is, and which of its collections."""

    collection: CollectionName = "default"

    @asynccontextmanager
    async def files(self) -> "AsyncIterator[Collection]":
        """The collection, open for the length of the block. Raises UnknownCollection."""
        async with self.store() as store:
            yield await store.collection(self.collection)


HERE = Where()
DEFAULT = InCollection()
