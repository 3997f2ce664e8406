"""HTML of Chromium and pandoc, books of pandoc, a notebook of Jupyter."""

import json
from pathlib import Path
from typing import Any

import pytest

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.chunking import Chunker
from tests.unit.formats.fix_bad_files import book
from tests.unit.formats.fix_files import parsed_as, read

BOOK = (
    "# The first river",
    "- a boat\n- an oar\n  - of ash",
    "| Place | Depth |\n| --- | --- |\n| Ford | 1 m |\n| Weir | 4 m |",
    '```\ndef depth(place):\n    return {"ford": 1}[place]\n```',
    "# Der zweite Fluss\n\nDie Brücke führt über den größten Fluss, und Wäsche trocknet am",
    "# النهر الثالث\n\nالنهر طويل وماؤه بارد في الشتاء.\n\n# 第四条河\n\n河水流过山谷，鱼在水中游。",
    "1. Measured in March.",
)


@pytest.mark.parametrize("name", ["pandoc.epub", "pandoc-epub2.epub", "pandoc.html"])
def test_a_book_of_pandoc_is_read_in_order(name: str) -> None:
    text = read(name).text
    places = [text.index(part) for part in BOOK]
    if name.endswith("html"):
        assert places == sorted(places)
    assert text.startswith("# A small book of rivers\n\nNobody\n\n# The first river")
    assert places[:-1] == sorted(places[:-1])


def test_a_book_is_read_without_its_table_of_contents_and_in_the_order_of_its_spine(tmp_path: Path) -> None:
    pages = {"toc": "<p>First, second</p>", "b": "<h1>Second</h1><p>two</p>", "a": "<h1>First</h1><p>one</p>"}
    manifest = '<item id="toc" href="toc" media-type="application/xhtml+xml" properties="nav"/>' + "".join(
        f'<item id="{name}" href="./{name}" media-type="application/xhtml+xml"/>' for name in "ba"
    )
    spine = '<itemref idref="toc"/><itemref idref="a"/><itemref idref="b"/>'
    content = book(spine, pages, manifest)
    assert parsed_as(tmp_path, "a.epub", content).text == "# First\n\none\n\n# Second\n\ntwo\n"


XHTML = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">{}</html>'


@pytest.mark.parametrize("name", ["a.xhtml", "a.epub"])
@pytest.mark.parametrize(
    "element",
    ["title", "iframe", "noscript", "template", "textarea", "xmp", "noembed", "noframes", "script", "p"],
)
def test_an_element_that_xml_closes_at_once_hides_nothing(name: str, element: str, tmp_path: Path) -> None:
    page = XHTML.format(
        f"<head><{element}/></head><body><p>one<br/>two</p>"
        f"<!-- <{element}/> --><{element} id='a>b' lang=\"\" /><p>three</p></body>"
    )
    content = book('<itemref idref="p"/>', {"p": page}) if name == "a.epub" else page.encode()
    assert parsed_as(tmp_path, name, content).text.split() == ["one", "two", "three"]


def test_text_that_a_page_of_xml_marks_as_such_is_kept(tmp_path: Path) -> None:
    page = XHTML.format(
        "<body><p><![CDATA[one < two]]> &lt; three</p><pre><![CDATA[if a<b/>c:]]></pre>"
        "<!-- <![CDATA[ --><p>four</p><![CDATA[not closed</body>"
    )
    text = parsed_as(tmp_path, "a.xhtml", page.encode()).text
    assert text == "one < two < three\n\n```\nif a<b/>c:\n```\n\nfour\n"


def test_code_that_a_list_item_of_a_page_begins_with_hides_no_heading(tmp_path: Path) -> None:
    page = b"<h1>Guide</h1><ol><li><pre># not\na</pre></li></ol><h2>Use</h2><p>x</p>"
    chunks = Chunker()(parsed_as(tmp_path, "a.html", page))
    assert [chunk.metadata.get("headings") for chunk in chunks] == [["Guide"], ["Guide", "Use"]]


def test_every_page_of_text_in_the_spine_of_a_book_is_read(tmp_path: Path) -> None:
    pages = {
        "xhtml": "<p>one</p>",
        "svg": "<svg/>",
        "oeb": "<p>two</p>",
        "xml": "<p>three</p>",
        "instead": "<p>four</p>",
    }
    kinds = {"oeb": "text/x-oeb1-document", "xml": "application/xml", "svg": "image/svg+xml"}
    manifest = "".join(
        f'<item id="{name}" href="{name}" media-type="{kinds.get(name, "application/xhtml+xml")}"/>'
        for name in pages
    )
    film = '<item id="film" href="film" media-type="video/mp4" fallback="instead"/>'
    ring = '<item id="ring" href="ring" media-type="video/mp4" fallback="ring"/>'
    spine = "".join(f'<itemref idref="{name}"/>' for name in ("xhtml", "svg", "ring", "oeb", "xml", "film"))
    content = book(spine, pages, manifest + film + ring)
    assert parsed_as(tmp_path, "a.epub", content).text == "one\n\ntwo\n\nthree\n\nfour\n"


def test_what_a_browser_shows_is_read_and_nothing_else() -> None:
    assert read("chromium.html").text == (
        "# Orchard handbook & notes\n\n## Pruning\n\n"
        "Prune in late\nwinter, see the tools. Keep `cut_angle` at 45°.\n\n"
        "```python\ndef prune(tree):\n    # not a heading\n    return tree.cut(angle=45)\n```\n\n"
        "| Tool | Use |\n| --- | --- |\n| Saw | thick \\| dry wood |\n\n1. Look\n2. Cut\n\n"
        "Written by a script: ناس and 人.\n"
    )


def test_a_title_in_a_comment_hides_none_of_the_page(tmp_path: Path) -> None:
    page = b"<!-- <title>Old</title> --><title>New</title><body><!-- <h1>x</h1> --><p>words</p></body>"
    assert parsed_as(tmp_path, "a.html", page).text == "# New\n\nwords\n"


def test_a_page_in_an_encoding_that_it_declares_is_read(tmp_path: Path) -> None:
    page = "<html><head><meta charset=windows-1251></head><body><h1>Да</h1><p>Нет</p></body></html>"
    assert parsed_as(tmp_path, "a.html", page.encode("cp1251")).text == "# Да\n\nНет\n"


def test_text_that_is_called_html_keeps_its_lines(tmp_path: Path) -> None:
    document = parsed_as(tmp_path, "a.html", b"one\ntwo 1 < 2\n")
    assert (document.text, document.kind) == ("one\ntwo 1 < 2\n", "text")


def test_a_notebook_keeps_prose_and_code_in_order() -> None:
    document = read("jupyter.ipynb")
    assert document.text == (
        "# Depth of rivers\n\nWe measure **twice**, in März and in 五月.\n\n"
        "```\ndepths = [1, 4]\n# the mean, not the median\nprint(sum(depths) / len(depths))\n```\n\nDone.\n"
    )
    assert document.kind == "markdown"


def notebook(*cells: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"nbformat": 4, "cells": list(cells), **more}).encode()


def test_a_notebook_names_the_language_of_its_code_and_leaves_outputs_out(tmp_path: Path) -> None:
    content = notebook(
        {
            "cell_type": "code",
            "source": ["x = 1\n", "x"],
            "outputs": [{"text": "SECRET"}],
            "execution_count": None,
        },
        {"cell_type": "raw", "source": "as it is"},
        metadata={"kernelspec": {"language": "julia", "name": "j"}},
    )
    document = parsed_as(tmp_path, "a.ipynb", content)
    assert document.text == "```julia\nx = 1\nx\n```\n\nas it is\n"
    assert document.language == "julia"


def test_a_notebook_that_leaves_values_empty_is_read(tmp_path: Path) -> None:
    content = notebook(
        {"cell_type": "markdown", "source": None},
        {"cell_type": "code", "source": "x"},
        metadata={"language_info": {"name": None}, "kernelspec": {"language": None}},
    )
    assert parsed_as(tmp_path, "a.ipynb", content).text == "```\nx\n```\n"


def test_code_that_holds_a_fence_gets_a_longer_one(tmp_path: Path) -> None:
    content = notebook({"cell_type": "code", "source": 'print("""\n````\n""")'})
    assert parsed_as(tmp_path, "a.ipynb", content).text == '`````\nprint("""\n````\n""")\n`````\n'


def test_a_notebook_of_format_3_is_read(tmp_path: Path) -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": "Old"}, {"cell_type": "code", "input": "1 + 1"}]
    content = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}).encode()
    assert parsed_as(tmp_path, "a.ipynb", content).text == "## Old\n\n```\n1 + 1\n```\n"


@pytest.mark.parametrize(("source", "held"), [("a\0b", "a NUL"), ("a\ud800b", "half of a surrogate pair")])
def test_a_notebook_whose_text_no_chunk_can_hold_says_so(tmp_path: Path, source: str, held: str) -> None:
    cells = [{"cell_type": "markdown", "metadata": {}, "source": [source]}]
    content = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    with pytest.raises(UnreadableFile, match=f"its text holds {held}"):
        parsed_as(tmp_path, "a.ipynb", content.encode())
