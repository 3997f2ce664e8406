"""Chunks of a text: where they are cut, what they say of themselves, how they survive edits."""

import random
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkstore.chunks import model_text
from chunkstore.errors import InvalidInput
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document, Kind
from chunkstore.ingest.parsers import parse
from chunkstore.ingest.sizes import estimated_tokens
from chunkstore.model import Chunk

TEXTS = Path(__file__).parents[2] / "examples" / "texts"
SENTENCE = "Nobody had expected the inspector to arrive eleven minutes early that day. "


def cut(text: str, kind: Kind = "text", size: int = 240, language: str | None = None) -> list[Chunk]:
    return list(Chunker(size)(Document(text, kind, language)))


def contents(text: str, kind: Kind = "text", size: int = 240) -> list[str]:
    return [chunk.content for chunk in cut(text, kind, size)]


def words(text: str) -> int:
    """How many runs without white space the text has."""
    return len(text.split())


def prose(sentences: int, seed: int = 1) -> str:
    """Paragraphs of invented sentences of 4 to 14 words, no two alike."""
    pick = random.Random(seed)
    vocabulary = [
        f"{a}{b}" for a in ("ka", "lo", "mi", "ter", "ban") for b in ("ra", "nos", "vi", "del", "um")
    ]
    made: list[str] = []
    for _ in range(sentences):
        chosen = " ".join(pick.choices(vocabulary, k=pick.randint(4, 14)))
        made.append(chosen.capitalize() + pick.choice([". ", ". ", "? ", ".\n\n"]))
    return "".join(made)


def without_space(text: str) -> str:
    return "".join(text.split())


def inserted(text: str, pick: random.Random) -> str:
    ends = [i + 2 for i in range(len(text) - 2) if text[i] in ".?!" and text[i + 1] in " \n"]
    at = pick.choice(ends)
    return text[:at] + SENTENCE + text[at:]


# --- places and sizes ---------------------------------------------------------------------------

SNIPPETS = [
    "word", "Word.", "longer sentence here. ", " ", "\n", "\n\n", "# Head\n", "## Sub #\n", "```\n", "~~~\n",
    "- item\n", "Title\n---\n", "===\n", "\t", "\r\n", "検索。", "é", "😀", "   ", "x" * 300, " " * 1200,
    "def f():\n    pass\n", "\x0b", "\u2028", "한국어 ", "!", '"', "a,b;c",
]  # fmt: skip


@given(st.lists(st.sampled_from(SNIPPETS), max_size=60), st.sampled_from(["text", "markdown", "code"]))
def test_a_place_gives_the_content_back_and_no_word_is_lost(parts: list[str], kind: Kind) -> None:
    text = "".join(parts)
    chunks = cut(text, kind, size=20)
    end = 0
    for chunk in chunks:
        place = chunk.place
        assert place is not None
        assert place.start is not None
        assert place.end is not None
        assert text[place.start : place.end] == chunk.content
        assert place.line == text[: place.start].count("\n") + 1
        assert place.start >= end
        assert chunk.content.strip()
        assert estimated_tokens(chunk.content) <= 20
        end = place.end
    assert without_space("".join(chunk.content for chunk in chunks)) == without_space(text)


@pytest.mark.parametrize("kind", ["text", "markdown", "code"])
@pytest.mark.parametrize("text", ["", " ", "\n\n\t\n", "\r\n" * 50, " " * 100_000])
def test_white_space_alone_makes_no_chunk(text: str, kind: Kind) -> None:
    assert cut(text, kind) == []


def test_a_short_text_is_one_chunk() -> None:
    assert contents("\n\n A line.\n\nAnother.\n") == [" A line.\n\nAnother."]


def test_chunks_of_prose_are_between_a_quarter_of_the_size_and_the_size() -> None:
    sizes = [estimated_tokens(content) for content in contents(prose(2000))]
    assert len(sizes) > 100
    assert max(sizes) <= 240
    assert min(sizes[:-1]) >= 60


def test_the_size_can_be_counted_in_words() -> None:
    chunks = list(Chunker(50, words)(Document(prose(500))))
    assert 30 < max(words(chunk.content) for chunk in chunks) <= 50


@pytest.mark.parametrize("size", [9, 10_001, 0, -5, 20.0, True, None])
def test_a_size_out_of_range_is_refused(size: Any) -> None:
    with pytest.raises(InvalidInput, match="size"):
        Chunker(size)


def test_the_same_text_gives_the_same_chunks() -> None:
    assert cut(prose(300)) == cut(prose(300))


def test_the_fingerprint_tells_chunkers_apart_and_is_the_same_in_every_process() -> None:
    assert Chunker().fingerprint == Chunker(240, estimated_tokens).fingerprint
    assert len({chunker.fingerprint for chunker in (Chunker(), Chunker(100), Chunker(240, words))}) == 3
    assert " at 0x" not in Chunker(100, partial(len)).fingerprint


@pytest.mark.parametrize("path", sorted(TEXTS.iterdir()), ids=lambda path: path.name)
def test_no_chunk_of_the_example_texts_is_cut_short_by_minilm(path: Path, tokenizer: Any) -> None:
    read = [model_text(chunk.content, chunk.metadata.get("headings")) for chunk in Chunker()(parse(path))]
    assert max(len(encoded.ids) for encoded in tokenizer.encode_batch(read)) <= 256


def test_long_headings_leave_half_of_the_size_to_the_content() -> None:
    path = "\n".join(f"{'#' * level} {'very long heading ' * 10}" for level in range(1, 7))
    chunks = cut(f"{path}\n\n{prose(200)}", "markdown")
    read = [estimated_tokens(model_text(chunk.content, chunk.metadata["headings"])) for chunk in chunks]
    content = [estimated_tokens(chunk.content) for chunk in chunks]
    assert max(read) <= 240
    assert max(content) >= 120
    assert all(len(chunk.metadata["headings"]) == 6 for chunk in chunks)


def test_the_size_holds_with_the_headings_that_a_model_reads() -> None:
    chunks = cut(f"# One\n\n## A heading of some length\n\n{prose(300)}", "markdown")
    read = [model_text(chunk.content, chunk.metadata["headings"]) for chunk in chunks]
    assert 220 < max(map(estimated_tokens, read)) <= 240


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer

    from chunkstore.models.local import minilm_path

    loaded = Tokenizer.from_file(str(minilm_path() / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


# --- cuts ---------------------------------------------------------------------------------------


def test_a_paragraph_is_kept_whole_where_its_end_is_within_reach() -> None:
    first = "One two three four. Five six seven eight. Nine ten eleven twelve."
    second = "Alpha beta gamma delta. Epsilon zeta eta theta. Iota kappa lambda mu."
    assert contents(f"{first}\n\n{second}", size=30) == [first, second]


def test_a_sentence_is_not_cut_in_two() -> None:
    for content in contents(prose(400).replace("\n\n", " "), size=60):
        assert content[-1] in ".?"


def test_an_abbreviation_before_a_small_letter_ends_no_sentence() -> None:
    text = (
        "Bring fruit, e.g. apples and pears and plums and more pears. "
        "Then go home and rest for a very long while indeed."
    )
    assert contents(text, size=32)[0].endswith("more pears.")


def test_list_items_are_kept_whole() -> None:
    items = [f"- Entry number {i} is short. It has two sentences." for i in range(60)]
    for content in contents("\n".join(items), "markdown", size=60):
        assert content.startswith("- ")
        assert content.splitlines()[-1] in items


def test_a_line_without_any_space_is_cut_to_size() -> None:
    text = "QmFzZTY0" * 5_000
    chunks = contents(text)
    assert "".join(chunks) == text
    assert max(map(estimated_tokens, chunks)) <= 240


def test_a_long_line_is_cut_in_little_memory() -> None:
    text = "x" * 100_000
    tracemalloc.start()
    try:
        assert sum(len(chunk.content) for chunk in Chunker()(Document(text))) == len(text)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def test_a_gap_of_a_thousand_blanks_is_never_inside_a_chunk() -> None:
    assert contents("before" + " " * 500_000 + "after") == ["before", "after"]


@pytest.mark.parametrize(
    "unit",
    [
        *"x. \n#`。",
        "a ",
        "```\n",
        "# a\n",
        '."',
        "=\n",
        "a\n=\n",
        "- ```\n",
        "<!--\n",
        "<pre>\n",
        "<!-- -->\n",
    ],
)
def test_a_hostile_text_is_cut_in_time_proportional_to_its_length(unit: str) -> None:
    """A quadratic step would take minutes here, and the test's time limit would end it."""
    text = unit * (150_000 // len(unit))
    for kind in ("text", "markdown", "code"):
        assert without_space("".join(contents(text, kind))) == without_space(text)


# --- edits --------------------------------------------------------------------------------------


def test_a_sentence_inserted_in_a_document_changes_one_and_a_half_chunks_on_average() -> None:
    pick = random.Random(3)
    changed: list[int] = []
    for path in sorted(TEXTS.iterdir()):
        document = parse(path)
        if document.kind == "code":
            continue
        text = document.text[:60_000]
        before = set(contents(text, document.kind))
        for _ in range(15):
            after = contents(inserted(text, pick), document.kind)
            changed.append(sum(content not in before for content in after))
    assert sum(changed) / len(changed) <= 1.5
    assert max(changed) <= 8


def test_text_put_in_front_leaves_the_later_chunks_alone() -> None:
    text = prose(600)
    before, after = contents(text), contents(prose(25, seed=2) + "\n\n" + text)
    assert after[-len(before) + 4 :] == before[4:]


# --- markdown -----------------------------------------------------------------------------------

GUIDE = """\
---
title: Guide
---

Preface.

# Guide to *everything* #

Intro of the guide.

## Install

### On Linux

Use the package.

```bash
# not a heading
apt install it
```

### On a Mac ###

Use the other package.

Use
---

Run it.

~~~
## not one either
```
# nor this
~~~

## C#

Sharp.
"""


def headed(text: str) -> list[tuple[list[str] | None, str]]:
    return [(chunk.metadata.get("headings"), chunk.content) for chunk in cut(text, "markdown")]


def test_a_chunk_of_markdown_knows_the_headings_above_it() -> None:
    top = "Guide to *everything*"
    found = [(headings, content.splitlines()[0]) for headings, content in headed(GUIDE)]
    assert found == [
        (None, "---"),
        ([top], "# Guide to *everything* #"),
        ([top, "Install", "On Linux"], "## Install"),
        ([top, "Install", "On a Mac"], "### On a Mac ###"),
        ([top, "Use"], "Use"),
        ([top, "C#"], "## C#"),
    ]


def test_what_looks_like_a_heading_in_a_code_block_is_none() -> None:
    assert [
        content for _, content in headed(GUIDE) if "not a heading" in content and "apt install" in content
    ]
    assert [content for _, content in headed(GUIDE) if "nor this" in content and "not one either" in content]


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("Top\n===\n\ntext", ["Top"]),
        ("# A\r\n\r\ntext\r\n", ["A"]),
        ("   # A\ntext", ["A"]),
        ("    # A\ntext", None),
        ("#A\ntext", None),
        ("#\n\ntext", None),
        ("####### A\ntext", None),
        ("two\nlines\n---\ntext", None),
        ("- item\n---\ntext", None),
        ("a | b\n--- | ---\n1 | 2", None),
        ("```\n# A", None),
        ("````\n```\n# A\n````\n", None),
        ("- ```sh\n  # c\n  ls\n  ```\n\n## A\n\ntext", ["A"]),
        ("1. ~~~\n\t# c\n   ~~~\n\n## A\n\ntext", ["A"]),
        ("- a\n  - ```\n    # c\n    ```\n- ```\n  # d\n  ```\n\n## A\n\ntext", ["A"]),
        ("- ```\n  # c\n  - ```\n  # d\n  ```\n\n## A\n\ntext", ["A"]),
        ("- ```\n  not closed\n\n## A\n\ntext", ["A"]),
        ("- ```\nnot indented\n```\n\n## A\n\ntext", ["A"]),
        ("- ```\n  # c", None),
        ("`a` *b*\n---\n\ntext", ["`a` *b*"]),
        ("**A**\n===\n\ntext", ["**A**"]),
        ("* item\n---\ntext", None),
        ("***\n---\ntext", None),
        ("<!--\n# A\n```\n-->\n\n## B\n\ntext", ["B"]),
        ("<PRE>\n# A\n\n## C\n</PRE>\n\n## B\n\ntext", ["B"]),
        ("<!-- one line --> \n# A\n\ntext -->", ["A"]),
        ("<pre>\nnot closed\n\n# A\n\ntext", ["A"]),
        ("```\n<!--\n```\n\n# A\n\ntext -->", ["A"]),
        ("Top\r===\r\rtext\r\r## A\r\rmore", ["Top", "A"]),
        ("# " + "long " * 100 + "\ntext", [("long " * 40).rstrip()]),
        ("# A\n## B\n# C\n### D\ntext", ["C", "D"]),
    ],
)
def test_a_heading_is_what_markdown_says(text: str, headings: list[str] | None) -> None:
    chunks = cut(text, "markdown")
    assert chunks[-1].metadata.get("headings") == headings


def test_a_text_with_the_line_ends_of_an_old_macintosh_keeps_them_and_has_lines() -> None:
    document = Document("Top\r===\r\rone\r\rSub\r---\r\rtwo\r")
    assert [(chunk.content, chunk.place and chunk.place.line) for chunk in Chunker()(document)] == [
        ("Top\r===\r\rone", 1),
        ("Sub\r---\r\rtwo", 6),
    ]


def test_a_long_section_keeps_its_headings_on_every_chunk() -> None:
    chunks = cut(f"# One\n\n{prose(200)}\n\n# Two\n\n{prose(200, seed=2)}", "markdown")
    assert len(chunks) > 10
    named = [chunk.metadata["headings"] for chunk in chunks]
    ones = named.count(["One"])
    assert ones > 5
    assert named == [["One"]] * ones + [["Two"]] * (len(named) - ones)


def test_headings_alone_make_one_chunk() -> None:
    assert headed("# A\n\n## B\n\n### C\n") == [(["A", "B", "C"], "# A\n\n## B\n\n### C")]


# --- code ---------------------------------------------------------------------------------------


def functions(n: int) -> Iterator[str]:
    for i in range(n):
        body = "\n".join(f"    step_{j} = compute({i}, {j})" for j in range(4))
        yield f"# what {i} does\n@decorated\ndef function_{i}():\n{body}\n\n    return step_0\n"


def test_a_chunk_of_code_names_its_language_and_begins_with_a_whole_function() -> None:
    text = "\n\n".join(functions(30))
    chunks = cut(text, "code", size=150, language="python")
    assert {chunk.metadata["language"] for chunk in chunks} == {"python"}
    assert len(chunks) > 10
    for chunk in chunks:
        assert chunk.content.startswith("# what")
        assert chunk.content.endswith("return step_0")


def test_a_chunk_of_code_keeps_its_indentation() -> None:
    text = "class A:\n" + "\n".join(f"    field_{i}: int = {i}" for i in range(200))
    assert all(content.startswith("    field") for content in contents(text, "code")[1:])


# --- measures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("  \n", 0), ("cat", 1), ("Government", 3), ("HTTP", 4), ("a-b", 3), ("2024", 2),
     ("検索", 2), ("한국", 4)],
)  # fmt: skip
def test_tokens_are_estimated_by_the_parts_of_words(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


def test_the_estimate_is_not_far_below_what_the_tokenizer_counts(tokenizer: Any) -> None:
    texts = [chunk.content for path in sorted(TEXTS.iterdir()) for chunk in Chunker()(parse(path))]
    counted = [len(encoded.ids) - 2 for encoded in tokenizer.encode_batch(texts)]
    over = [true / estimated_tokens(text) for text, true in zip(texts, counted, strict=True)]
    assert sum(ratio <= 1.1 for ratio in over) / len(over) >= 0.99
