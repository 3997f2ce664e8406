"""The steps of `ingest`: the collection found or created, files brought in, their chunks made searchable."""

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio.abc import TaskGroup

from chunkstore.cli import slow
from chunkstore.cli.asking import can_ask, confirmed
from chunkstore.cli.models import load, spec_for
from chunkstore.cli.output import clean, progress, say
from chunkstore.errors import UnknownCollection
from chunkstore.ingest import pipeline, rehearsal
from chunkstore.ingest.pipeline import Checks, IngestReport, Limits, Outdated, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as Bar

    from chunkstore.collection import Collection
    from chunkstore.models import Model
    from chunkstore.store import ChunkStore

DEFAULT_MODEL = "minilm"
_SHOWN = 10


class Request(msgspec.Struct, frozen=True):
    """What was asked for on the command line."""

    paths: Sequence[str]
    checks: Checks
    limits: Limits
    prune: bool
    rechunk: bool | None
    yes: bool


def checks_of(names: str) -> Checks:
    """The checks of `--check`. Raises InvalidInput."""
    return Checks.named(names)


def limits_of(seconds: float, mebibytes: int) -> Limits:
    """The limits of one file. Raises InvalidInput."""
    return Limits(seconds, mebibytes << 20)


async def find(store: "ChunkStore", name: str) -> "Collection | None":
    """The collection, or None where it is not there."""
    try:
        return await store.collection(name)
    except UnknownCollection:
        return None


async def find_or_create(store: "ChunkStore", name: str, spec: str | None) -> "Collection":
    """The collection; created with the model of the spec where it is not there. Raises ModelMismatch."""
    collection = await find(store, name)
    if collection is None:
        model = await load(spec or DEFAULT_MODEL)
        say(f"creating the collection {name!r} with the model {model.name!r}")
        return await store.collection(name, model)
    return collection if spec is None else await store.collection(name, spec)


async def rehearse(collection: "Collection | None", asked: Request) -> IngestReport:
    """Says what ingesting the paths would do, with a progress bar."""
    with progress() as bar:
        return await rehearsal.rehearse(
            collection,
            asked.paths,
            prune=asked.prune,
            checks=asked.checks,
            rechunk=asked.rechunk or False,
            limits=asked.limits,
            on_progress=_Shown(bar),
            on_outdated=lambda outdated: say(str(outdated)),
        )


async def bring_in(collection: "Collection", asked: Request) -> IngestReport:
    """Ingests the paths, with a progress bar, and asks before it prunes or chunks anew."""
    with progress() as bar:
        return await _ingest(collection, asked, bar)


async def bring_in_and_embed(
    store: "ChunkStore", collection: "Collection", asked: Request, spec: str | None, device: str | None
) -> IngestReport:
    """Ingests the paths, and embeds and projects meanwhile and after, until nothing is left to do."""
    ended = anyio.Event()
    embedded: list[int] = []
    models: list[Model] = []
    report = IngestReport()
    with progress() as bar:

        async def embed_meanwhile(model: "Model") -> None:
            embedded.append((await slow.embed(store, model, bar, drain=False, stop=ended)).embedded)

        async def project_meanwhile(model: "Model") -> None:
            await slow.project(store, model.name, bar, drain=False, stop=ended)

        async def meanwhile(tasks: TaskGroup) -> None:
            models.extend(await _models(collection, spec, device))
            for model in models:
                tasks.start_soon(embed_meanwhile, model)
                tasks.start_soon(project_meanwhile, model)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(meanwhile, tasks)
            report = await _ingest(collection, asked, bar)
            ended.set()
        for model in models:
            embedded.append((await slow.embed(store, model, bar)).embedded)
            await slow.project(store, model.name, bar)
    return msgspec.structs.replace(report, embedded=sum(embedded))


async def _ingest(collection: "Collection", asked: Request, bar: "Bar") -> IngestReport:
    if collection.opener() is None:
        name = collection.model_names[0]
        say(f"chunks are sized by an estimate: give {name!r} with --model to size them in its own tokens")
    shown = _Shown(bar)
    try:
        return await pipeline.ingest(
            collection,
            asked.paths,
            prune=asked.prune,
            checks=asked.checks,
            rechunk=asked.rechunk or False,
            limits=asked.limits,
            on_progress=shown,
            confirm_prune=_PruneQuestion(collection.name, bar, yes=asked.yes),
            confirm_rechunk=_RechunkQuestion(bar, asked),
        )
    except anyio.get_cancelled_exc_class():
        say(f"interrupted after {shown.counted}: what was brought in stays, the next run goes on from there")
        raise


class _Shown:
    """Shows an ingestion in a row of the progress bar."""

    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._row = bar.add_task("reading files", total=None)
        self.counted = "0 files"

    def __call__(self, at: Progress) -> None:
        self.counted = f"{at.done:,} of {_files(at.total)}"
        description = f"{at.outcome} {clean(at.key)}"
        self._bar.update(self._row, description=description, completed=at.done, total=at.total)


class _PruneQuestion:
    """Shows what is to be deleted, and asks."""

    def __init__(self, collection: str, bar: "Bar", *, yes: bool) -> None:
        self._collection = collection
        self._bar = bar
        self._yes = yes

    async def __call__(self, keys: Sequence[str]) -> bool:
        with _paused(self._bar):
            say(f"{_files(len(keys))} of {self._collection!r} gone from the folders given:")
            for key in keys[:_SHOWN]:
                say(f"  {key}")
            if len(keys) > _SHOWN:
                say(f"  … and {len(keys) - _SHOWN:,} more")
            agreed = await confirmed(f"Delete {'it' if len(keys) == 1 else 'them'}?", yes=self._yes)
            if not agreed:
                say("none was deleted")
        return agreed


class _RechunkQuestion:
    """Says what an earlier chunker or parser made, and asks where somebody can be asked."""

    def __init__(self, bar: "Bar", asked: Request) -> None:
        self._bar = bar
        self._asked = asked

    async def __call__(self, outdated: Outdated) -> bool:
        if self._asked.rechunk is False:
            return False
        with _paused(self._bar):
            say(str(outdated))
            if self._asked.rechunk:
                return True
            if self._asked.yes or not can_ask():
                say("they stay as they are: give --rechunk, or --no-rechunk to be told no more")
                return False
            return await confirmed("Chunk them anew?", yes=False)


@contextmanager
def _paused(bar: "Bar") -> "Iterator[None]":
    """Takes the progress bar away while somebody reads and answers."""
    bar.stop()
    try:
        yield
    finally:
        bar.start()


async def _models(collection: "Collection", spec: str | None, device: str | None) -> "list[Model]":
    given = None if spec is None else await load(spec, device)
    return [
        given if given is not None and given.name == name else await load(spec_for(name), device)
        for name in collection.model_names
    ]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
