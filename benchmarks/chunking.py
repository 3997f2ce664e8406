"""`python -m benchmarks chunking [FOLDER]`: what an edit costs with each chunker, and what is found with it.

One table counts the chunks that are embedded anew after one edit of a document, one shows their sizes and
what they cut through, one the recall over questions made from the documents.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from benchmarks.chunkers import Cut, all_chunkers
from benchmarks.edits import MOVE, WORK, Edit, edits
from benchmarks.questions import Question, questions
from benchmarks.recall import Recall, Retrieval
from benchmarks.shapes import KINDS, shape
from chunkstore.errors import ChunkstoreError
from chunkstore.ingest.chunking import DEFAULT_SIZE
from chunkstore.ingest.document import Document
from chunkstore.ingest.parsers import parse
from chunkstore.ingest.sizes import estimated_tokens
from chunkstore.models.specs import open_model

_ROOT = Path(__file__).parents[1]
_SHORTEST, _LONGEST = 4_000, 150_000
"""Characters of a document that is measured: a shorter one has so few chunks that any edit changes few."""

Edited = Sequence[tuple[Document, Sequence[Edit]]]


def main(arguments: Sequence[str]) -> None:
    """Reads the documents, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chunking", description=__doc__)
    parser.add_argument(
        "folder", nargs="*", type=Path, help="documents; the project's own where none is given"
    )
    parser.add_argument("--documents", type=int, default=30, help="at most so many, drawn by the seed")
    parser.add_argument("--draws", type=int, default=2, help="edits of each kind in a document")
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="of a chunk, in estimated tokens")
    parser.add_argument("--questions", type=int, default=500, help="0: the first table alone")
    parser.add_argument("--model", default="minilm", help="what finds the answers")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    folders = given.folder or [_ROOT / "docs", _ROOT / "examples" / "texts"]
    documents = read(folders, given.documents, given.seed)
    console = Console(width=160)
    characters = sum(len(document.text) for document in documents)
    console.print(f"{len(documents)} documents, {characters:,} characters, seed {given.seed}")
    if not documents:
        return
    chunkers = all_chunkers(given.size, estimated_tokens)
    edited = _edited(documents, given.draws, given.seed)
    console.print(changes_table(chunkers, edited))
    console.print(shapes_table(chunkers, documents, given.size))
    if given.questions:
        asked = questions(documents, given.questions, given.seed)
        console.print(recall_table(chunkers, documents, asked, given.model))


def read(folders: Sequence[Path], most: int, seed: int) -> list[Document]:
    """At most `most` prose documents of those folders, as the seed draws them."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    random.Random(seed).shuffle(paths)
    documents: list[Document] = []
    for path in paths:
        if len(documents) == most:
            break
        try:
            document = parse(path)
        except ChunkstoreError:
            continue
        if document.kind != "code" and _SHORTEST <= len(document.text) <= _LONGEST:
            documents.append(document)
    return documents


def _edited(documents: Sequence[Document], draws: int, seed: int) -> Edited:
    edited: list[tuple[Document, list[Edit]]] = []
    for i, document in enumerate(documents):
        rng = random.Random(f"{seed} {i}")
        edited.append((document, [edit for _ in range(draws) for edit in edits(document, rng)]))
    return edited


def changes_table(chunkers: dict[str, Cut], edited: Edited) -> Table:
    """Chunks embedded anew a document, by the kind of edit and its place."""
    works = (*WORK, MOVE)
    table = _table(
        "Chunks embedded anew a document after one edit", *(work.replace(", ", "\n") for work in works)
    )
    for name, cut in chunkers.items():
        changed = _changed(cut, edited)
        table.add_row(name, *(f"{mean(changed[work]):.2f}" if changed[work] else "" for work in works))
    return table


def _changed(cut: Cut, edited: Edited) -> dict[str, list[int]]:
    """For each edit, how many texts a model has not embedded yet."""
    changed: dict[str, list[int]] = defaultdict(list)
    for document, its_edits in edited:
        before = {part.text for part in cut(document)}
        for edit in its_edits:
            after = {part.text for part in cut(Document(edit.text, document.kind, document.language))}
            changed[edit.work].append(len(after - before))
    return changed


def shapes_table(chunkers: dict[str, Cut], documents: Sequence[Document], size: int) -> Table:
    """Sizes with headings, in estimated tokens; and what the chunks cut through that would have fitted."""
    heads = ("chunks", "least", "median", "most", f"below {size // 4}", f"above {size}")
    table = _table(f"Chunks of {size} estimated tokens", *heads, *(f"cut a\n{kind}" for kind in KINDS))
    for name, cut in chunkers.items():
        parts = [cut(document) for document in documents]
        sizes = [estimated_tokens(part.text) for chunks in parts for part in chunks]
        found = shape(documents, parts, sizes, size, limit=2 * size)
        numbers = (found.chunks, found.least, round(found.median), found.most)
        shares = (found.small, found.large, *(found.broken[kind] for kind in KINDS))
        table.add_row(name, *map(str, numbers), *(f"{share:.1%}" for share in shares))
    return table


def recall_table(
    chunkers: dict[str, Cut], documents: Sequence[Document], asked: Sequence[Question], spec: str
) -> Table:
    """Recall@5 by chunker, of all questions and of those that do not and do name their topic."""
    retrieval = Retrieval(open_model(spec), asked)
    title = f"Recall@5 of {len(asked)} questions, {spec}, exact search, in percent"
    table = _table(title, "most of\nthe answer", "all of it", "no topic\nnamed", "topic\nnamed")
    for name, cut in chunkers.items():
        table.add_row(name, *_percent(retrieval.recall([cut(document) for document in documents])))
    return table


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title)
    table.add_column("chunker", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _percent(recall: Recall) -> list[str]:
    return [f"{100 * share:.1f}" for share in (recall.most, recall.whole, recall.alone, recall.topic)]
