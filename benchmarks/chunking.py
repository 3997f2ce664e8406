"""`python -m benchmarks chunking [FOLDER]`: what an edit costs with each chunker, and what is found with it.

One table counts the chunks that are embedded anew after one edit of a document, one shows their sizes and
what they cut through, one the recall over questions made from the documents. How far it is goes to stderr.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from benchmarks.chunkers import OURS, Cut, Part, all_chunkers
from benchmarks.edits import MOVE, MOVE_PARAGRAPHS, WORK, Edit, edits
from benchmarks.questions import WAYS, Question, questions
from benchmarks.recall import ahead, recall
from benchmarks.shapes import KINDS, shape
from benchmarks.vectors import Vectors
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
Parts = dict[str, list[list[Part]]]
"""By the name of a chunker, the chunks of each document."""


def main(arguments: Sequence[str]) -> None:
    """Reads the documents, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chunking", description=__doc__)
    parser.add_argument(
        "folder", nargs="*", type=Path, help="documents; the project's own where none is given"
    )
    parser.add_argument("--documents", type=int, default=60, help="at most so many, drawn by the seed")
    parser.add_argument("--draws", type=int, default=2, help="edits of each kind in a document")
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="of a chunk, in estimated tokens")
    parser.add_argument("--questions", type=int, default=1_200, help="at most so many; 0: no recall")
    parser.add_argument("--model", default="minilm", help="what finds the answers")
    parser.add_argument("--vectors", type=Path, help="a folder to keep vectors in, for the next run")
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
    parts = {name: [cut(document) for document in documents] for name, cut in chunkers.items()}
    console.print(shapes_table(parts, documents, given.size))
    console.print(changes_table(chunkers, parts, _edited(documents, given.draws, given.seed)))
    if given.questions:
        vectors = Vectors(open_model(given.model), given.vectors)
        console.print(recall_table(parts, questions(documents, given.questions, given.seed), vectors))


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


def changes_table(chunkers: dict[str, Cut], parts: Parts, edited: Edited) -> Table:
    """Chunks embedded anew a document, by the kind of edit and its place."""
    works = (*WORK, MOVE, MOVE_PARAGRAPHS)
    title = "Chunks embedded anew a document after one edit"
    table = _table(title, *(work.replace(", ", "\n").replace("move ", "move\n") for work in works))
    for name, cut in chunkers.items():
        sys.stderr.write(f"{sum(len(its) for _, its in edited):,} edits, {name}\n")
        changed = _changed(cut, parts[name], edited)
        table.add_row(name, *(f"{mean(changed[work]):.2f}" if changed[work] else "" for work in works))
    return table


def _changed(cut: Cut, parts: Sequence[Sequence[Part]], edited: Edited) -> dict[str, list[int]]:
    """For each edit, how many texts a model has not embedded yet."""
    changed: dict[str, list[int]] = defaultdict(list)
    for chunks, (document, its_edits) in zip(parts, edited, strict=True):
        before = {part.text for part in chunks}
        for edit in its_edits:
            after = {part.text for part in cut(Document(edit.text, document.kind, document.language))}
            changed[edit.work].append(len(after - before))
    return changed


def shapes_table(parts: Parts, documents: Sequence[Document], size: int) -> Table:
    """Sizes with headings, in estimated tokens; and what the chunks cut through that would have fitted."""
    heads = ("chunks", "least", "median", "most", f"below {size // 4}", f"above {size}")
    table = _table(f"Chunks of {size} estimated tokens", *heads, *(f"cut a\n{kind}" for kind in KINDS))
    for name, of_documents in parts.items():
        sizes = [estimated_tokens(part.text) for chunks in of_documents for part in chunks]
        found = shape(documents, of_documents, sizes, size, limit=2 * size)
        numbers = (found.chunks, found.least, round(found.median), found.most)
        shares = (found.small, found.large, *(found.broken[kind] for kind in KINDS))
        table.add_row(name, *map(str, numbers), *(f"{share:.1%}" for share in shares))
    return table


def recall_table(parts: Parts, asked: Sequence[Question], vectors: Vectors) -> Table:
    """Recall@5 by chunker, over the ways of asking and by each; and how far ours is ahead."""
    title = f"Recall@5 of {len(asked)} questions asked in {len(WAYS)} ways, exact search, in percent"
    heads = ("most of\nthe answer", "all of it", *WAYS, "ours ahead,\nstandard error", "same,\nbare, heading")
    table = _table(title, *heads)
    if not asked:
        return table
    vectors.add(part.text for chunks in parts.values() for document in chunks for part in document)
    found = {name: recall(vectors, asked, of_documents) for name, of_documents in parts.items()}
    for name, its in found.items():
        means = (its.most.mean(), its.whole.mean(), *its.most.mean(axis=1))
        every = ahead(found[OURS].most, its.most, asked)
        two = ahead(found[OURS].most[:2], its.most[:2], asked)
        gaps = ("", "") if name == OURS else (str(every), str(two))
        table.add_row(name, *(f"{100 * share:.1f}" for share in means), *gaps)
    return table


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title)
    table.add_column("chunker", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table
