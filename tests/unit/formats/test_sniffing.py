"""Files whose names lie are read as what they are; what only looks like another format does not."""

import json
from pathlib import Path

import pytest

from chunkstore.ingest.formats.sniffing import may_be_read, sniff
from tests.unit.formats.fix_files import FILES, parsed_as

MADE = {
    "pdf": "writer.pdf",
    "docx": "writer.docx",
    "pptx": "impress.pptx",
    "xlsx": "calc.xlsx",
    "epub": "pandoc.epub",
    "html": "chromium.html",
    "notebook": "jupyter.ipynb",
    "mail": "mutt-attached.eml",
}


@pytest.mark.parametrize("format_name", MADE)
@pytest.mark.parametrize("lie", ["a.txt", "a", "a.unknown", "a.zip", "a.doc", "a.pdf", "a.docx"])
def test_a_file_with_a_lying_name_is_read_as_what_it_is(format_name: str, lie: str, tmp_path: Path) -> None:
    document = parsed_as(tmp_path, lie, (FILES / MADE[format_name]).read_bytes())
    assert document.parser.startswith(f"{format_name}/")


@pytest.mark.parametrize("lie", ["a.md", "a.py", "a.csv", "a.json", "a.html", "a.eml", "README"])
def test_a_pdf_and_a_document_are_known_under_any_name(lie: str, tmp_path: Path) -> None:
    for format_name in ("pdf", "docx"):
        document = parsed_as(tmp_path, lie, (FILES / MADE[format_name]).read_bytes())
        assert document.parser.startswith(f"{format_name}/")


@pytest.mark.parametrize(
    ("name", "content", "parser"),
    [
        ("a.md", b"<!-- x -->\n<!DOCTYPE html><html><body><p>x</body></html>", "html/2"),
        (
            "a.txt",
            b"<?xml version='1.0'?>\n<html xmlns='http://www.w3.org/1999/xhtml'><p>x</p></html>",
            "html/2",
        ),
        ("a.txt", "<!doctype html><p>x".encode("utf-16"), "html/2"),
        ("a.csv", b"<html><table><tr><td>x</table></html>", "html/2"),
        ("a.json", b"<!DOCTYPE html><title>404</title><p>Not found", "html/2"),
        ("a.json", b'{"cells": [{"cell_type": "markdown", "source": "x"}], "nbformat": 4}', "notebook/1"),
        ("a.json", b'{"items": [1], "meta": {"nbformat": 4}}', "json/1"),
        ("a.json", b'{"nbformat": 4, "why": "a setting of a program"}', "json/1"),
        (
            "a.json",
            b'{"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": "x"}]}]}',
            "notebook/1",
        ),
        ("a.txt", b"From: a@example.org\nSubject: x\n\nwords", "mail/2"),
        ("a.md", b'<h1 align="center">A name</h1>\n\nwords', "markdown/1"),
        ("a.md", b"Subject: x\nFrom: me\n\nwords", "markdown/1"),
        ("a.php", b"<!DOCTYPE html><html><?php echo 1 ?></html>", "code/2"),
        ("a.js", b"<html></html>", "code/2"),
        ("a.txt", b"Note: this\nThat: too\n\nwords", "text/1"),
        ("a.txt", b"From: me\n\nSubject: none", "text/1"),
        ("a.txt", b"Subject: x\nFrom: x\nwords follow at once\n", "text/1"),
        ("a.txt", b"To: All staff\nFrom: The Director\nRe: Closure\nDate: 1 May\n\nwords", "text/1"),
        ("a.txt", b"Subject: weekly\nDate: 2024-05-01\nRoom: 5\n\nwords", "text/1"),
        ("a.txt", b"From: svc\nMessage-ID: <1@example.org>\n\nwords", "mail/2"),
        ("a.txt", b"From: x@example.org\nSubject: x\n" + b"X-Long: y\n" * 2_000 + b"\nwords", "mail/2"),
        ("a.txt", b"the page says <html> somewhere", "text/1"),
        ("a.txt", b"A line about %PDF-1.7 files", "text/1"),
        ("a.txt", b"BMW and MZ are makers", "text/1"),
        ("a.txt", b"{not json}", "text/1"),
        ("a.pdf", b"just words", "text/1"),
        ("a.docx", b"just words", "text/1"),
        ("a", b"# words", "text/1"),
    ],
)
def test_text_is_what_its_first_words_and_its_name_say_together(
    name: str, content: bytes, parser: str, tmp_path: Path
) -> None:
    assert parsed_as(tmp_path, name, content).parser == parser


@pytest.mark.parametrize("name", [*MADE.values(), "encodings/zh.UTF-16LE.txt", "encodings/ja.SHIFT-JIS.txt"])
def test_what_is_read_may_be_read_by_its_head(name: str) -> None:
    assert may_be_read((FILES / name).read_bytes()[:8_192])


@pytest.mark.parametrize("name", ["picture.png", "writer.doc"])
def test_what_is_not_read_is_known_by_its_head(name: str) -> None:
    assert not may_be_read((FILES / name).read_bytes()[:8_192])


def test_a_notebook_is_known_by_its_end_where_its_program_writes_the_format_last() -> None:
    cells = [{"cell_type": "markdown", "metadata": {}, "source": ["A line of it. " * 40]} for _ in range(40)]
    notebook = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)
    assert sniff(notebook.encode()).format == "notebook"


def test_a_pdf_with_lines_before_it_is_a_pdf() -> None:
    served = b"HTTP/1.1 200 OK\nContent-Type: application/pdf\n\n%PDF-1.4\n" + b"1 0 obj <<>> endobj\n" * 500
    assert sniff(served + b"startxref\n9\n%%EOF\n").format == "pdf"
    assert sniff(b"A text about %PDF- and the like. " * 500).format == ""
