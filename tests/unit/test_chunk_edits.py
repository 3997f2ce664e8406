"""What an edit of any text does to its chunks, and what cutting a hostile one costs."""

import random
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.edits import MOVE, MOVE_PARAGRAPHS, WORK, edits
from chunkstore.chunks import model_text
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document, Kind
from chunkstore.ingest.parsers import parse

ROOT = Path(__file__).parents[2]
LINES = [
    "# Head", "## Sub", "Title\n=====", "A sentence here. Another one, longer than the first!", "", "", "~~~",
    "- item one. Two.", "  - nested", "  continued below", "| a | b |", "|---|---|", "| c. D | e |", "```",
    "    code = 1", "1. First. Second.", "+---+---+", "====  ====", "检索。系统！", "هل هذا؟ نعم.",
    "word " * 30, "x" * 90, "\t", "...",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(LINES), max_size=80).map("\n".join)
KINDS = st.sampled_from(["text", "markdown", "code"])


def read(text: str, kind: Kind, size: int = 60) -> list[str]:
    """What a model is given of the text."""
    chunks = Chunker(size)(Document(text, kind, "python" if kind == "code" else None))
    return [model_text(chunk.content, chunk.metadata.get("headings")) for chunk in chunks]


@given(TEXTS, KINDS)
@settings(deadline=None)
def test_every_span_gives_its_content_back_and_only_white_space_is_between(text: str, kind: Kind) -> None:
    end = 0
    for chunk in Chunker(60)(Document(text, kind)):
        assert chunk.place is not None
        assert chunk.place.start is not None
        assert chunk.place.end is not None
        assert text[chunk.place.start : chunk.place.end] == chunk.content
        assert chunk.content.strip()
        assert not text[end : chunk.place.start].strip()
        end = chunk.place.end
    assert not text[end:].strip()


@given(TEXTS, KINDS, st.integers(10, 200))
@settings(deadline=None)
def test_no_chunk_is_larger_than_the_size_with_its_headings(text: str, kind: Kind, size: int) -> None:
    chunker = Chunker(size)
    assert all(chunker.measure(given) <= size for given in read(text, kind, size))


@given(TEXTS, KINDS)
@settings(deadline=None)
def test_what_a_chunker_of_the_same_fingerprint_makes_is_the_same(text: str, kind: Kind) -> None:
    assert Chunker(60).fingerprint == Chunker(60).fingerprint
    assert read(text, kind) == read(text, kind)


def distinct(sections: int, seed: int) -> list[str]:
    """Sections of a Markdown text, no two sentences alike."""
    pick = random.Random(seed)
    made: list[str] = []
    for i in range(sections):
        sentences = [
            f"In case {i}.{j} the {pick.randrange(10**6)} ways of {pick.randrange(10**6)} are tried."
            for j in range(pick.randint(5, 40))
        ]
        made.append(f"## Section {i}\n\n" + "".join(one + pick.choice(" \n") for one in sentences))
    return made


@given(st.integers(0, 10**6), st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_sections_in_another_order_are_the_same_chunks(seed: int, order: list[int]) -> None:
    sections = distinct(6, seed)
    before = read("# Top\n\nFirst.\n\n" + "\n\n".join(sections), "markdown", 200)
    after = read("# Top\n\nFirst.\n\n" + "\n\n".join(sections[i] for i in order), "markdown", 200)
    assert set(after) == set(before)


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_a_text_put_in_front_of_another_leaves_all_but_the_first_chunks(seed: int, lines: int) -> None:
    text = " ".join(distinct(8, seed)).replace("##", "")
    front = "\n\n".join(f"News {i} of {seed} is short." for i in range(lines))
    before, after = read(text, "text"), read(f"{front}\n\n{text}", "text")
    assert before[6:] == after[len(after) - len(before) + 6 :]


def test_edits_of_the_projects_own_documents_cost_no_more_than_promised() -> None:
    """The promise of the design: 1.5 chunks for a sentence, 3 for a section."""
    changed: dict[str, list[int]] = {work: [] for work in (*WORK, MOVE, MOVE_PARAGRAPHS)}
    paths = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples" / "texts").iterdir()]
    for path in sorted(paths):
        document = parse(path)
        text = document.text[:60_000]
        if document.kind == "code" or len(text) < 4_000:
            continue
        before = set(read(text, document.kind, 240))
        for edit in edits(Document(text, document.kind), random.Random(path.name)):
            changed[edit.work].append(len(set(read(edit.text, document.kind, 240)) - before))
    assert min(len(changed[work]) for work in (*WORK, MOVE)) > 15
    for work in WORK:
        assert mean(changed[work]) <= 1.5, work
    assert mean(mean(changed[work]) for work in WORK) <= 1.3
    assert mean(changed[MOVE]) <= 0.5
    assert mean(changed[MOVE] + changed[MOVE_PARAGRAPHS]) <= 3


# --- hostile texts ------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], str]] = {
    "one line": lambda n: "word " * (n // 5),
    "one word": lambda n: "x" * n,
    "blank lines": lambda n: "\n" * n,
    "nested lists": lambda n: "".join(f"{' ' * (i % 500)}- item\n" for i in range(n // 256)),
    "deeper and deeper": lambda n: "".join(f"{' ' * i}- a\n\n" for i in range(int((2 * n) ** 0.5))),
    "rows": lambda n: "| a | b |\n|---|---|\n" + "| c | d |\n" * (n // 10),
    "rules": lambda n: "|---|---|\n" * (n // 10),
    "titles": lambda n: "Title\n=====\n" * (n // 12),
    "marks": lambda n: "." * n,
    "fences": lambda n: "```\n\n" * (n // 5),
    "one sentence again": lambda n: "The same sentence. " * (n // 19),
    "headings down": lambda n: "".join(f"{'#' * (i % 6 + 1)} h\n" for i in range(n // 6)),
}


@pytest.mark.parametrize("kind", ["text", "markdown", "code"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_eight_times_as_long_takes_about_eight_times_as_long(name: str, kind: Kind) -> None:
    made = HOSTILE[name]
    short, long = (_seconds(made(length), kind) for length in (10_000, 80_000))
    assert long <= 24 * short + 0.25


def _seconds(text: str, kind: Kind) -> float:
    """The lesser processor time of two."""
    times: list[float] = []
    for _ in range(2):
        start = process_time()
        for _ in Chunker()(Document(text, kind)):
            pass
        times.append(process_time() - start)
    return min(times)


@pytest.mark.parametrize(
    "text", ["lorem ipsum " * 833_333, "\n" * 1_000_000], ids=["10 MB line", "blank lines"]
)
def test_ten_megabytes_in_one_line_and_a_million_blank_lines_are_cut(text: str) -> None:
    count = sum(len(chunk.content) for chunk in Chunker(2_000)(Document(text)))
    assert count >= len(text.strip()) * 0.99
