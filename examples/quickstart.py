"""The whole way of a document, in one process: what `make run` runs.

    python examples/quickstart.py [FOLDER]

Ingests the project's own `docs/` and the longer texts beside this file (or a folder of yours, whose files
it only reads), searches, edits a document, ingests again, deletes one, collects, and verifies.
"""

import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote
from textwrap import fill, shorten

import anyio
import anyio.to_thread
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from chunkstore import ChunkStore, ChunkstoreError, Collection, Hit
from chunkstore.ingest.pipeline import IngestReport, ingest
from chunkstore.models import Model, open_model
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from projections.verify import verify

HERE = Path(__file__).resolve().parent
OWN_FOLDERS = (HERE.parent / "docs", HERE / "texts")
OWN_QUESTIONS = (
    "What happens to the work of a consumer that dies?",
    "How do I sort a list by two keys?",
    "What if the power fails in the middle of a transaction?",
)
DATA = Path(".chunkstore")
SCHEMA = "quickstart"
ADDED = (
    f"The archive of the lighthouse keepers is open on Thursdays. (Noted {datetime.now().astimezone():%c}.)"
)
QUESTION = "When can I visit the lighthouse archive?"

console = Console(highlight=False, markup=False)


async def main(collection: str, folders: Sequence[Path], questions: Sequence[str]) -> bool:
    """Goes the whole way; returns whether every invariant holds at its end."""
    step(f"Start the embedded Postgres in {DATA}/ and bring its schema up to date")
    async with await ChunkStore.open(data=DATA, schema=SCHEMA, migrate=True) as store:
        with console.status("loading MiniLM"):
            model = await anyio.to_thread.run_sync(open_model, "minilm")
        documents = await store.collection(collection, model, keep_last=1)
        say(
            f"the store is the schema {SCHEMA!r}, with a collection {collection!r} for the model {model.name}"
        )

        step(f"Ingest {' and '.join(f'{folder.name}/' for folder in folders)}")
        say_ingested(await ingest_folders(documents, folders))
        say(f"{chunks(await make_active(store, model))} embedded")
        keys = await keys_in(documents, folders)
        if not keys:
            sys.exit("no text to read is in there")
        for question in questions or await own_words(documents, keys):
            await ask(documents, question)

        edited = await edit(store, documents, model, folders[0], keys)
        await delete(store, documents, model, [key for key in keys if key != edited])

        step("Collect what the retention does not keep: here, all but each file's last version")
        report = await collect(store)
        say(f"{report.collected} versions collected, {chunks(report.swept)} removed with their vectors")
        return await check(store)


# --- steps --------------------------------------------------------------------------------------


async def edit(
    store: ChunkStore, documents: Collection, model: Model, folder: Path, keys: Sequence[str]
) -> str:
    """Ingests an edited copy of the folder's longest document, and finds what was added; returns its key."""
    paths = {key: folder.parent / key for key in keys if key.startswith(f"{folder.name}/")}
    key = max(paths, key=lambda key: paths[key].stat().st_size)
    step(f"Edit {key}: one sentence more in its middle (in a copy: your file stays as it is)")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / key
        copy.parent.mkdir(parents=True)
        paragraphs = paths[key].read_text(encoding="utf-8", errors="replace").split("\n\n")
        paragraphs.insert(len(paragraphs) // 2, ADDED)
        copy.write_text("\n\n".join(paragraphs), encoding="utf-8")
        report = await ingest_folders(documents, [Path(scratch) / folder.name])
    say_ingested(report)
    total = report.chunks_reused + report.chunks_added
    say(f"{chunks(await make_active(store, model))} embedded again, of {total}")
    await ask(documents, QUESTION, most=1)
    return key


async def delete(store: ChunkStore, documents: Collection, model: Model, keys: Sequence[str]) -> None:
    """Deletes the last of the files, if there is one."""
    if keys:
        step(f"Delete {keys[-1]}")
        version = await documents.delete(keys[-1])
        await make_active(store, model)
        say(f"version {version.number} is a tombstone: searches lost the file at once and whole")


async def check(store: ChunkStore) -> bool:
    """Prints the verdict of `verify`."""
    step("Verify every invariant on the live store")
    with console.status("verifying"):
        verdict = await verify(store)
    for found in verdict.broken:
        say(f"invariant {found.invariant} is broken: {found.description}")
    say(f"{len(verdict.checks)} checks: {'every invariant holds' if verdict.ok else 'BROKEN'}")
    return verdict.ok


async def ingest_folders(documents: Collection, folders: Sequence[Path]) -> IngestReport:
    """Each changed file becomes a new version; returns what came of each."""
    with progress() as bar:
        row = bar.add_task("reading and cutting files", total=None)
        return await ingest(
            documents, folders, on_progress=lambda at: bar.update(row, completed=at.done, total=at.total)
        )


async def make_active(store: ChunkStore, model: Model) -> int:
    """Embeds what is not embedded yet, then switches the files; returns how many chunks were embedded."""
    waiting = await waiting_chunks(store)
    with progress() as bar:
        row = bar.add_task("embedding", total=waiting)
        consumer = EmbeddingConsumer(
            store, model, batch=64, on_progress=lambda report: bar.update(row, completed=report.stored)
        )
        report = await consumer.run(drain=True)
        await Projector(store, model.name).run(drain=True)
    return report.embedded


async def waiting_chunks(store: ChunkStore) -> int:
    """How many embeddings are lacking; the views are for anybody who has psql, too."""
    async with store.database.transaction() as conn:
        cursor = await conn.execute("SELECT coalesce(sum(lacking), 0)::bigint FROM waiting")
        (lacking,) = await cursor.fetchone() or (0,)
        return lacking


async def ask(documents: Collection, question: str, most: int = 2) -> None:
    """Searches, and prints what was found with all that it takes to cite it."""
    step(f"Search: {question}")
    for hit in await documents.search(question, k=most):
        show(hit)


async def keys_in(documents: Collection, folders: Sequence[Path]) -> list[str]:
    """The keys of the folders' files, sorted; another run may have left others."""
    prefixes = tuple(f"{folder.name}/" for folder in folders)
    return sorted([key async for key in documents.keys() if key.startswith(prefixes)])  # noqa: SIM118


async def own_words(documents: Collection, keys: Sequence[str]) -> list[str]:
    """Questions to files that nobody here knows: the beginnings of chunks from three of them."""
    questions: list[str] = []
    for key in keys[:: max(1, len(keys) // 3)][:3]:
        content = [chunk.content async for chunk in documents.chunks(key)]
        if content:
            questions.append(shorten(content[len(content) // 2], 70, placeholder=""))
    return questions


# --- printing -----------------------------------------------------------------------------------


def step(title: str) -> None:
    console.print(f"\n{title}", style="bold", soft_wrap=True)


def say(text: str) -> None:
    console.print(f"  {text}", soft_wrap=True)


def chunks(count: int) -> str:
    return "1 chunk" if count == 1 else f"{count:,} chunks"


def say_ingested(report: IngestReport) -> None:
    """What was read, left out and why, in one table; of files that fail alike the first few."""
    table = Table.grid(padding=(0, 2))
    rows = [
        ("files added", report.added),
        ("files updated", report.updated),
        ("files unchanged", report.unchanged),
        *((f"left out: {reason}", count) for reason, count in sorted(report.left_out.items())),
        ("chunks added", report.chunks_added),
        ("chunks reused", report.chunks_reused),
    ]
    for name, count in rows:
        table.add_row(f"  {name}", Text(f"{count:,}", justify="right"))
    console.print(table)
    for reason, paths in report.failures().items():
        for path in paths[:3]:
            say(f"not ingested: {path}: {reason}")
        if len(paths) > 3:
            say(f"… and {len(paths) - 3:,} more: {reason}")


def show(hit: Hit) -> None:
    cited = f"version {hit.version}, chunk {hit.ordinal}"
    if hit.place is not None:
        cited += f", line {hit.place.line}, characters {hit.place.start}–{hit.place.end}"
    head = Text(f"  {hit.score:.3f}  ", "green").append(hit.key, "cyan").append(f"  {cited}", "dim")
    console.print(head, soft_wrap=True)
    text = shorten(hit.content[max(0, hit.content.find(ADDED)) :], 230, placeholder=" …")
    console.print(fill(text, min(console.width, 110), initial_indent=" " * 9, subsequent_indent=" " * 9))


def say_where_to_go(collection: str, folders: Sequence[Path]) -> None:
    where = f"--collection {quote(collection)} --data {DATA} --schema {SCHEMA}"
    step("Go on")
    say(f'.venv/bin/chunkstore search "your question" {where}')
    say(f".venv/bin/chunkstore ingest {quote(str(folders[0]))} --wait {where}")
    say(".venv/bin/chunkstore --help")
    say("make run DOCS=a/folder/of/yours")
    say("docs/quickstart.md goes the same way by hand")


def progress() -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


if __name__ == "__main__":
    given = [Path(argument).expanduser().resolve() for argument in sys.argv[1:]]
    if wrong := [path for path in given if not path.is_dir()]:
        sys.exit(f"no folder: {wrong[0]}")
    collection, folders, questions = "documents", OWN_FOLDERS, OWN_QUESTIONS
    if given:
        collection, folders, questions = given[0].name, tuple(given), ()
    try:
        holds = anyio.run(main, collection, folders, questions)
    except ChunkstoreError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    say_where_to_go(collection, folders)
    sys.exit(0 if holds else 1)
