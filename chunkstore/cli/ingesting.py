"""The steps of `ingest`: the collection found or created, files brought in, their chunks made searchable."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chunkstore.cli import slow
from chunkstore.cli.asking import confirmed
from chunkstore.cli.models import load, spec_for
from chunkstore.cli.output import clean, progress, say
from chunkstore.errors import UnknownCollection
from chunkstore.ingest.pipeline import IngestReport, Progress, ingest

if TYPE_CHECKING:
    from chunkstore.collection import Collection
    from chunkstore.models import Model
    from chunkstore.store import ChunkStore

DEFAULT_MODEL = "minilm"
_SHOWN = 10


async def find_or_create(store: "ChunkStore", name: str, spec: str | None) -> "Collection":
    """The collection; created with the model of the spec where it is not there. Raises ModelMismatch."""
    try:
        collection = await store.collection(name)
    except UnknownCollection:
        model = await load(spec or DEFAULT_MODEL)
        say(f"creating the collection {name!r} with the model {model.name!r}")
        return await store.collection(name, model)
    return collection if spec is None else await store.collection(name, spec)


async def bring_in(collection: "Collection", paths: Sequence[str], *, prune: bool, yes: bool) -> IngestReport:
    """Ingests the paths, with a progress bar, and asks before it prunes."""
    with progress() as bar:
        row = bar.add_task("reading files", total=None)

        def show(at: Progress) -> None:
            bar.update(row, description=f"{at.outcome} {clean(at.key)}", completed=at.done, total=at.total)

        async def may_prune(keys: Sequence[str]) -> bool:
            bar.stop()
            say(f"{_files(len(keys))} of {collection.name!r} gone from the folders given:")
            for key in keys[:_SHOWN]:
                say(f"  {key}")
            if len(keys) > _SHOWN:
                say(f"  … and {len(keys) - _SHOWN:,} more")
            agreed = await confirmed(f"Delete {'it' if len(keys) == 1 else 'them'}?", yes=yes)
            if not agreed:
                say("none was deleted")
            bar.start()
            return agreed

        return await ingest(collection, paths, prune=prune, on_progress=show, confirm_prune=may_prune)


async def make_active(
    store: "ChunkStore", collection: "Collection", spec: str | None, device: str | None
) -> int:
    """Embeds and projects for the collection's models until nothing is left; returns the chunks embedded."""
    models = await _models(collection, spec, device)
    embedded = 0
    with progress() as bar:
        for model in models:
            embedded += (await slow.embed(store, model, bar)).embedded
            await slow.project(store, model.name, bar)
    return embedded


async def _models(collection: "Collection", spec: str | None, device: str | None) -> "list[Model]":
    given = None if spec is None else await load(spec, device)
    return [
        given if given is not None and given.name == name else await load(spec_for(name), device)
        for name in collection.model_names
    ]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
