"""What stays whole: sentences of any script, items, table rows, blocks of code, functions, headings."""

import re
from pathlib import Path

import pytest

from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document, Kind
from chunkstore.model import Chunk

WORDS = "the quick brown fox jumps over a lazy dog while seven wizards quietly mix black quartz"


def cut(text: str, kind: Kind = "text", size: int = 60, language: str | None = None) -> list[Chunk]:
    return list(Chunker(size)(Document(text, kind, language)))


def contents(text: str, kind: Kind = "text", size: int = 60, language: str | None = None) -> list[str]:
    return [chunk.content for chunk in cut(text, kind, size, language)]


def paragraphs(count: int) -> str:
    return "\n\n".join(f"Paragraph {i}: {WORDS}. Then {WORDS}." for i in range(count))


# --- sentences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "gap"),
    [
        ("这是第{}个句子，它说了一些关于存储系统的事情。", ""),
        ("第{}の文は、保存された文書について何かを述べています。", ""),
        ("هل تحفظ الحاشية رقم {} كل ما كتب في المخطوط القديم؟", " "),
        ("یہ جملہ نمبر {} ہے جو پرانی کتاب کے بارے میں ہے۔", " "),
        ("यह वाक्य संख्या {} है जो पुरानी पुस्तक के बारे में है।", " "),
        ("Это предложение номер {} о старой книге и её читателях.", " "),
        ("Αυτή είναι η πρόταση {} για το παλιό βιβλίο και τους αναγνώστες.", " "),
        ("이것은 오래된 책에 관한 {}번째 문장입니다.", " "),
        ("He asked number {} (of many): \u201cWhere is the book that we lost?\u201d", " "),
    ],
)
def test_a_sentence_of_any_script_is_whole(sentence: str, gap: str) -> None:
    sentences = [sentence.format(i) for i in range(100, 140)]
    found = contents(gap.join(sentences), size=100)
    assert len(found) > 10
    for content in found:
        assert any(content.startswith(one) for one in sentences)
        assert any(content.endswith(one) for one in sentences)


@pytest.mark.parametrize(
    "text",
    [
        "Ask Dr. Watson of the second company about it",
        "See Fig. 3 and the note below for the whole story",
        "It was J. Smith who wrote the whole of the chapter",
        "They met at no. 10, i.e. Downing Street, in the evening",
    ],
)
def test_an_abbreviation_ends_no_sentence(text: str) -> None:
    found = contents(" ".join(f"{text} {i}." for i in range(100, 130)), size=40)
    assert len(found) > 5
    assert {content[: len(text)] for content in found} == {text}


def test_the_number_of_an_item_ends_no_sentence() -> None:
    items = [f"{i}. Turn the key by {i} degrees and wait. Then turn it back." for i in range(1, 60)]
    for content in contents("\n".join(items)):
        assert re.match(r"[0-9]+\. Turn", content)
        assert content.splitlines()[-1] in items


def test_text_without_the_end_of_a_sentence_is_cut_between_words() -> None:
    for content in contents("lorem ipsum dolor sit amet " * 300):
        assert set(content.split()) <= {"lorem", "ipsum", "dolor", "sit", "amet"}


# --- items and tables ---------------------------------------------------------------------------


def test_an_item_keeps_what_is_nested_in_it_and_its_second_paragraph() -> None:
    items = [
        f"- Entry {i} of the list. It says more.\n\n  Its second paragraph.\n\n  - nested {i}\n"
        for i in range(30)
    ]
    for content in contents("\n".join(items), "markdown", size=80):
        assert content.startswith("- Entry")
        assert re.search(r"- nested [0-9]+$", content)


HEADER = "| name | what it does | since |\n| --- | :---: | ---: |\n"
GRID_RULE = "+------+--------------+"


def test_a_row_of_a_table_is_whole_and_its_header_does_not_stand_alone() -> None:
    rows = [f"| option {i} | Sets it. Then waits. | 1.{i} |" for i in range(100, 160)]
    found = contents(f"Before it.\n\n{HEADER}" + "\n".join(rows) + "\n\nAfter it.", "markdown")
    assert len(found) > 10
    for content in found:
        for line in content.splitlines():
            assert line in rows or line in HEADER.splitlines() or not line or line.endswith(" it.")
    assert any(HEADER + rows[0] in content for content in found)


def test_a_table_without_outer_bars_has_rows_too() -> None:
    rows = [f"option {i} | Sets it. Then waits." for i in range(100, 160)]
    found = contents("name | what\n--- | ---\n" + "\n".join(rows), "markdown")
    assert {line for content in found for line in content.splitlines()[2:]} <= set(rows)


def test_a_row_of_several_lines_is_whole_in_a_grid() -> None:
    rows = [f"| {i}  | First. Then  |\n|      | the second.  |\n" for i in range(100, 150)]
    found = contents(GRID_RULE + "\n" + f"{GRID_RULE}\n".join(rows) + GRID_RULE, size=100)
    assert len(found) > 10
    for content in found:
        assert content.startswith(GRID_RULE)
        assert content.count("First.") == content.count("the second.")


def test_a_simple_table_is_cut_between_its_rows() -> None:
    rows = [f"key{i}    One value. Two values." for i in range(100, 150)]
    found = contents("=====  ====\nkey    value\n=====  ====\n" + "\n".join(rows) + "\n=====  ====")
    for content in found[1:]:
        assert content.splitlines()[0] in rows


# --- code ---------------------------------------------------------------------------------------


def fence(lines: int) -> str:
    return (
        "```python\n"
        + "\n".join(f"a{i} = {i}" + ("\n" if i % 3 == 2 else "") for i in range(lines))
        + "\n```"
    )


def test_a_code_block_that_fits_a_chunk_is_whole() -> None:
    text = "\n\n".join(f"Paragraph {i}: {WORDS}.\n\n{fence(9)}" for i in range(20))
    for content in contents(text, "markdown"):
        assert content.count("```") % 2 == 0


def test_a_code_block_is_whole_even_where_a_chunk_beside_it_is_small_for_that() -> None:
    code = "```\n" + "\n\n".join(f"a{i} = {i}" for i in range(45)) + "\n```"
    found = contents(f"A short introduction.\n\n{code}\n\n{WORDS}. {WORDS}.", "markdown", size=240)
    assert len(found) == 2
    assert any(code in content for content in found)


def test_a_code_block_that_fits_no_chunk_is_divided_at_its_blank_lines() -> None:
    found = contents(fence(90), "markdown")
    assert len(found) > 3
    for content in found[:-1]:
        assert int(content.rsplit(" ", 1)[1]) % 3 == 2


def test_indented_code_is_with_the_line_that_introduces_it() -> None:
    code = "    first = 1\n    print(first)\n\n    second = 2\n    print(second)\n"
    text = "\n".join(f"Sentence {i} is {WORDS}. An example::\n\n{code}" for i in range(20))
    for content in contents(text, size=70):
        assert content.count("An example::") == content.count("first = 1") == content.count("print(second)")


PROGRAMS = {
    "python": "class A{i}:\n    x = 1\n\n    # about b\n    def b():\n        one()\n\n        return 2\n",
    "c": "/* about f{i} */\nstatic int f{i}(int a)\n{{\n    int b;\n\n    b = a;\n\n    return b;\n}}\n",
    "go": "// about f{i}\nfunc f{i}(a int) int {{\n\tb := a\n\n\tc := b\n\n\treturn c\n}}\n",
    "rust": "/// about f{i}\n#[inline]\nfn f{i}(a: i32) -> i32 {{\n    let b = a;\n\n    b\n}}\n",
    "java": "/** about A{i} */\nclass A{i} {{\n    int a;\n\n    int b() {{\n        return 1;\n    }}\n}}\n",
    "typescript": "/** about f{i} */\nexport function f{i}(a: A) {{\n  const b = a;\n\n  return b;\n}}\n",
    "bash": "# about f{i}\nf{i}() {{\n  echo one\n\n  echo two\n}}\n",
}


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_function_with_its_comment_is_whole(language: str) -> None:
    pytest.importorskip("tree_sitter")
    units = [PROGRAMS[language].format(i=i).strip() for i in range(30)]
    found = contents("\n".join(units), "code", language=language)
    assert len(found) > 5
    for content in found:
        assert any(content.startswith(unit) for unit in units)
        assert any(content.endswith(unit) for unit in units)


def test_a_class_that_is_too_large_is_divided_between_its_methods() -> None:
    pytest.importorskip("tree_sitter")
    body = "        one()\n\n        if two:\n            three()\n\n        return {i}"
    method = "    @wrapped\n    def m{i}(self):\n" + body
    text = "class A:\n" + "\n".join(method.format(i=i) for i in range(40))
    found = contents(text, "code", size=80, language="python")
    assert len(found) > 5
    for content in found[1:]:
        assert content.startswith("    @wrapped")


def test_a_line_of_a_string_that_is_flush_ends_no_function() -> None:
    pytest.importorskip("tree_sitter")
    unit = 'def f{i}():\n    return """one\n\ntwo {i}\n\nthree"""\n'
    found = contents("\n".join(unit.format(i=i) for i in range(40)), "code", language="python")
    assert all(content.startswith("def") and content.endswith('three"""') for content in found)


@pytest.mark.parametrize(
    "text", ["def f(:\n" * 200, "}\n" * 500, "class A {\n" * 300, "\x00\n" * 50 + "def f(): pass"]
)
def test_code_that_does_not_parse_is_cut_all_the_same(text: str) -> None:
    for language in ("python", "c", "typescript", None):
        assert "".join("".join(contents(text, "code", language=language)).split()) == "".join(text.split())


# --- headings -----------------------------------------------------------------------------------


def test_a_heading_is_with_the_first_sentence_below_it() -> None:
    text = "\n\n".join(f"# Heading {i}\n\n{paragraphs(6)}" for i in range(10))
    for chunk in cut(text, "markdown"):
        if chunk.content.startswith("# "):
            assert "quick brown" in chunk.content


RST = """\
=====
Guide
=====

Preface.

Install
=======

On Linux
--------

Use it.

Notes
=====

name  value
----  -----
one   2

A sentence is here
and ends below. It has
----------------------
no title.

--------

ok
--

Too short a line for so long a title as this one is
---
"""


def test_underlined_titles_of_a_plain_text_are_headings() -> None:
    found = [(chunk.metadata.get("headings"), chunk.content.splitlines()[0]) for chunk in cut(RST, size=200)]
    assert found == [
        (["Guide"], "====="),
        (["Guide", "Install", "On Linux"], "Install"),
        (["Guide", "Notes"], "Notes"),
    ]


def test_a_title_is_kept_without_its_markup() -> None:
    text = ":mod:`heapq` --- the ``heap`` queue\n===================================\n\nText."
    [chunk] = cut(text, size=100)
    assert chunk.metadata == {"headings": ["heapq --- the heap queue"]}
    assert chunk.content == text


def test_a_place_names_the_page_that_the_chunk_begins_on() -> None:
    text = paragraphs(30)
    pages = (0, text.index("Paragraph 10:"), text.index("Paragraph 20:"))
    for chunk in Chunker(60)(Document(text, "text", pages=pages)):
        assert chunk.place is not None
        first = re.search(r"Paragraph ([0-9]+):", text[chunk.place.start :])
        begins = re.match(r"Paragraph ([0-9]+):", chunk.content)
        number = int(begins[1]) if begins else int(first[1]) - 1 if first else 29
        assert chunk.place.page == number // 10 + 1
    assert [chunk.place.page for chunk in cut(text) if chunk.place] == [None] * len(cut(text))


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "chunkstore").rglob("*.py"))[:40:4])
def test_real_code_is_covered_and_every_span_gives_the_content_back(path: Path) -> None:
    text = path.read_text()
    end = 0
    for chunk in cut(text, "code", size=100, language="python"):
        assert chunk.place is not None
        assert chunk.place.start is not None
        assert chunk.place.end is not None
        assert text[chunk.place.start : chunk.place.end] == chunk.content
        assert not text[end : chunk.place.start].strip()
        end = chunk.place.end
    assert not text[end:].strip()
