# ruff: noqa: E501 - a row is a line
"""Bad files, a row each: what is refused says why in one line, and nothing else happens."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.formats.fix_bad_files import (
    DEEP,
    FETCH,
    LAUGHS,
    book,
    changed,
    cut,
    edited,
    flagged,
    flipped,
    made,
    nested_mail,
    notebook,
    zipped,
)
from tests.unit.formats.fix_files import refused_as

ZIPS = {"docx": "writer.docx", "pptx": "impress.pptx", "xlsx": "calc.xlsx", "epub": "pandoc.epub"}
MAIN = {"docx": "word/document.xml", "pptx": "ppt/presentation.xml", "xlsx": "xl/workbook.xml"}
DAMAGED_ZIP = "a ZIP archive or office document, truncated or damaged"
PASSWORD = "encrypted: a password is needed to read it"
DOCUMENT_TYPE = "declares a document type (DTD), which is refused"
MEGABYTES = 1_000_000
JSON_DEPTH = 200_000

Row = tuple[str, Callable[[], bytes], str]
"""The file's name, what makes it, and words of the reason why it is not read."""

EMPTY: list[Row] = [
    (f"a.{end}", bytes, f"empty: 0 bytes are no {title}")
    for end, title in (("pdf", "PDF"), ("docx", "Word"), ("pptx", "PowerPoint"), ("xlsx", "Excel"), ("epub", "EPUB"))
]  # fmt: skip
TRUNCATED: list[Row] = [
    *((f"a.{end}", lambda name=name, part=part: cut(name, part), DAMAGED_ZIP)
      for end, name in ZIPS.items() for part in (0.05, 0.5, 0.99)),
    *(("a.pdf", lambda part=part: cut("writer.pdf", part), "truncated: a PDF without its end")
      for part in (0.01, 0.5, 0.99)),
    ("a.pdf", lambda: cut("linearized.pdf", 0.7), "truncated: "),
    ("a.ipynb", lambda: cut("jupyter.ipynb", 0.5), "not valid JSON: "),
    ("a.json", lambda: b'{"a": [1, 2', "not valid JSON: Expecting ',' delimiter at line 1, column 12"),
    ("a.jsonl", lambda: b'{"a": 1}\n{"a": ', "not valid JSON: Expecting value at line 2, column 7"),
    ("a.csv", lambda: b'a,b\n1,2\n"open,3\n4,5\n', "in the row that begins on line 3: a quote is opened and never"),
]  # fmt: skip
ENCRYPTED: list[Row] = [
    ("a.pdf", lambda: made("encrypted.pdf"), PASSWORD),
    ("a.txt", lambda: made("encrypted.pdf"), PASSWORD),
    ("a.docx", lambda: made("encrypted.docx"), PASSWORD),
    *((f"a.{end}", lambda name=name: flagged(name), PASSWORD) for end, name in ZIPS.items()),
    ("a.epub", lambda: book('<itemref idref="p"/>', {"p": "<p>x</p>"}, **{
        "META-INF__encryption_xml": '<encryption><CipherReference URI="p"/></encryption>'}),
     "encrypted (DRM): 1 of its 1 pages cannot be read"),
]  # fmt: skip
NO_TEXT: list[Row] = [
    ("a.pdf", lambda: made("images.pdf"), "no text: 2 pages of images; OCR is not done here"),
    ("a.docx", lambda: edited("writer.docx", MAIN["docx"], lambda xml: re.sub(r"<w:t( [^>]*)?>[^<]*", r"<w:t>", xml)),
     "no text: an empty document, or one of images"),
    ("a.pptx", lambda: edited("impress.pptx", MAIN["pptx"], lambda xml: re.sub("<p:sldIdLst>.*</p:sldIdLst>", "", xml)), "no text: 0 slides"),
    ("a.xlsx", lambda: edited("calc.xlsx", MAIN["xlsx"], lambda xml: re.sub("<sheets>.*</sheets>", "", xml)),
     "no text: all cells are empty; text boxes, charts"),
    ("a.epub", lambda: book('<itemref idref="p"/>', {"p": "<html><body><img src='a.png'/></body></html>"}),
     "no text: 1 pages of images"),
    ("a.epub", lambda: book('<itemref idref="p"/>', {"p": "<svg/>"}, '<item id="p" href="p" media-type="image/svg+xml"/>'),
     "no text: 1 pages of images"),
    ("a.html", lambda: b"<html><body><script>draw()</script></body></html>", "no text: a page of scripts"),
    ("a.ipynb", lambda: notebook([{"cell_type": "code", "source": " \n"}]), "no text: all cells are empty"),
    ("a.eml", lambda: b"MIME-Version: 1.0\n\n \n", "no text: an empty message"),
]  # fmt: skip
BOMBS: list[Row] = [
    *((f"a.{end}", lambda name=name: changed(name, {"bomb.xml": b" " * 20 * MEGABYTES}), "would unpack to 20,")
      for end, name in ZIPS.items()),
    ("a.docx", lambda: changed("writer.docx", {f"word/media/{n}": b"" for n in range(10_001)}), "at most 10,000 are read"),
    ("a.zip", lambda: zipped({"a.zip": zipped({"a.docx": made("writer.docx")})}), "a ZIP archive of 1 members"),
    *((f"a.{end}", lambda name=ZIPS[end], part=part: changed(name, {part: LAUGHS}), DOCUMENT_TYPE)
      for end, part in MAIN.items()),
    *((f"a.{end}", lambda name=ZIPS[end], part=part: changed(name, {part: FETCH}), DOCUMENT_TYPE)
      for end, part in MAIN.items()),
    ("a.docx", lambda: changed("writer.docx", {"word/document.xml": FETCH.encode("utf-16")}), DOCUMENT_TYPE),
    ("a.docx", lambda: changed("writer.docx", {"word/_rels/document.xml.rels": LAUGHS}), DOCUMENT_TYPE),
    ("a.epub", lambda: changed("pandoc.epub", {"META-INF/container.xml": LAUGHS}), DOCUMENT_TYPE),
    ("a.docx", lambda: changed("writer.docx", {MAIN["docx"]: DEEP}), "its elements nest too deep"),
    ("a.pptx", lambda: changed("impress.pptx", {MAIN["pptx"]: DEEP}), "Excessive depth in document"),
    ("a.xlsx", lambda: changed("calc.xlsx", {MAIN["xlsx"]: DEEP}), "Excessive depth in document"),
    ("a.html", lambda: b"<html><body>" + b"<div>" * 100_000 + b"x", "its elements nest more than 1,024 deep"),
    ("a.epub", lambda: book('<itemref idref="p"/>', {"p": "<b>" * 100_000 + "x"}), "nest more than 1,024 deep"),
    ("a.json", lambda: b"[" * JSON_DEPTH + b"]" * JSON_DEPTH, "its values nest too deep"),
    ("a.ipynb", lambda: b'{"nbformat": 4, "cells": ' + b"[" * JSON_DEPTH, "its values nest too deep"),
    ("a.eml", lambda: nested_mail(50), "its parts nest more than 20 deep"),
]  # fmt: skip
DAMAGED: list[Row] = [
    *((f"a.{end}", lambda name=ZIPS[end], part=part: flipped(name, part), f"its part '{part}' is ") for end, part in MAIN.items()),
    *((f"a.{end}", lambda name=ZIPS[end], part=part: changed(name, {part: b"<no"}), f"its part '{part}' is no XML")
      for end, part in MAIN.items()),
    ("a.docx", lambda: changed("writer.docx", {MAIN["docx"]: None}), "incomplete: it has no part 'word/document.xml'"),
    ("a.pptx", lambda: changed("impress.pptx", {"ppt/slides/slide1.xml": None}), "a damaged PowerPoint presentation: KeyError"),
    ("a.xlsx", lambda: changed("calc.xlsx", {"xl/worksheets/sheet1.xml": None}), "incomplete: of its 3 sheets only 2 are there"),
    ("a.pptx", lambda: changed("impress.pptx", {"[Content_Types].xml": None}), "a damaged PowerPoint presentation: KeyError"),
    ("a.docx", lambda: changed("writer.docx", {"word/document.xml": "<a/>"}), "Could not find the body element"),
    ("a.xlsx", lambda: changed("calc.xlsx", {"xl/workbook.xml": "<a/>"}), "no text: all cells are empty"),
    ("a.pdf", lambda: b"%PDF-1.7\nnothing\n%%EOF\n", "a damaged PDF: it cannot be opened"),
    ("a.pdf", lambda: b"%PDF-1.7\n" + b"\xff\x00" * 5_000 + b"%%EOF", "a damaged PDF"),
    ("a.epub", lambda: book("", {"p": "<p>x</p>"}), "incomplete: its spine names no page"),
    ("a.epub", lambda: book('<itemref idref="q"/>', {"p": "<p>x</p>"}), "incomplete: its spine names no page"),
    ("a.epub", lambda: book('<itemref idref="p"/>', {"q": ""}, '<item id="p" href="../p.html" media-type="text/html"/>'),
     "incomplete: it has no part '../p.html'"),
    ("a.epub", lambda: book("<broken", {"p": ""}), "its part 'o.opf' is no XML"),
    ("a.epub", lambda: changed("pandoc.epub", {"META-INF/container.xml": None}), "incomplete: it has no part 'META-INF/"),
    ("a.epub", lambda: changed("pandoc.epub", {"META-INF/container.xml": "<a/>"}), "incomplete: its container names no"),
]  # fmt: skip
STRICT: list[Row] = [
    (f"a.{end}", lambda end=end, space=space: edited(ZIPS[end], MAIN[end], lambda xml: xml.replace(
        f"http://schemas.openxmlformats.org/{space}/2006/main", f"http://purl.oclc.org/ooxml/{space}/main")),
     "of the kind Strict Open XML, which is not read here")
    for end, space in (("xlsx", "spreadsheetml"), ("pptx", "presentationml"))
]  # fmt: skip
WRONG_TYPES: list[Row] = [
    ("a.ipynb", lambda: b"[]", "not a notebook: Expected `object`, got `array`"),
    ("a.ipynb", lambda: b"{}", "not a notebook: Object missing required field `nbformat`"),
    ("a.ipynb", lambda: notebook(5), "not a notebook: Expected `array`, got `str` - at `$.cells`"),
    ("a.ipynb", lambda: notebook([None]), "not a notebook: Expected `object`, got `null` - at `$.cells[0]`"),
    ("a.ipynb", lambda: notebook([{"source": "x"}]), "missing required field `cell_type` - at `$.cells[0]`"),
    ("a.ipynb", lambda: notebook([{"cell_type": "code", "source": {"a": 1}}]), "`$.cells[0].source`"),
    ("a.ipynb", lambda: notebook([{"cell_type": "code", "source": [None]}]), "`$.cells[0].source[0]`"),
    ("a.ipynb", lambda: notebook([], metadata=[1]), "not a notebook: Expected `object`, got `array` - at `$.metadata`"),
    ("a.json", lambda: b'{"a": tru}', "not valid JSON: Expecting value at line 1, column 7"),
    ("a.json", lambda: b"just words", "not valid JSON: Expecting value at line 1, column 1"),
    ("a.json", lambda: b'{"a": 1}\n{"a": }\n', "not valid JSON: Extra data at line 2, column 1"),
    ("a.json", lambda: b'["a\tb"]', "not valid JSON: Invalid control character"),
    ("a.jsonl", lambda: b"1\nwords\n", "not valid JSON: Expecting value at line 2, column 1"),
    ("a.csv", lambda: b'"a"b,c\n', "not valid CSV: in the row that begins on line 1: ',' expected after '\"'"),
    ("a.csv", lambda: b'a,"' + b"x" * 9 * MEGABYTES + b'"\n', "field larger than field limit"),
    ("a.eml", lambda: b"just words\nand more\n", "not an e-mail"),
]  # fmt: skip
NUL: list[Row] = [
    *((f"a.{end}", lambda: b"words and\0more", "a binary file: it holds a NUL byte at position 9")
      for end in ("txt", "md", "py", "csv", "json", "html", "ipynb", "unknown", "pdf", "docx")),
    ("a.csv", lambda: b"a,b\n\0,1\n", "a binary file: it holds a NUL byte at position 4"),
]  # fmt: skip
LYING: list[Row] = [
    ("a.md", lambda: made("picture.png"), "a PNG image"),
    ("a.pdf", lambda: made("picture.png"), "a PNG image"),
    ("a.docx", lambda: b"\x1f\x8b" + bytes(40), "a gzip archive"),
    ("a.txt", lambda: made("writer.doc"), "a Word 97-2003 document, which is not read here: save it as .docx"),
    ("a.xlsx", lambda: made("calc.xls"), "an Excel 97-2003 workbook, which is not read here: save it as .xlsx"),
    ("a.docx", lambda: made("writer.odt"), "an OpenDocument file, which is not read here"),
    ("a.docx", lambda: made("writer.rtf"), "a Rich Text document (RTF): save it as .docx"),
    ("a.docx", lambda: zipped({"a.txt": "words"}), "a ZIP archive of 1 members, which is not read here"),
    ("a.docx", lambda: zipped({}), "a ZIP archive of 0 members, which is not read here"),
    ("a.txt", lambda: b"\x7fELF\x02\x01\x01" + bytes(90), "a program, which is not read here"),
    ("a.csv", lambda: b"SQLite format 3\0" + bytes(90), "an SQLite database"),
    ("a.json", lambda: b"PAR1" + bytes(90), "a Parquet table"),
    ("a.txt", lambda: bytes(257) + b"ustar" + bytes(90), "a tar archive"),
    ("a.html", lambda: b"RIFF\0\0\0\0WEBPVP8 ", "a picture, recording or film (RIFF)"),
    ("a.eml", lambda: b"\0\0\0\x18ftypmp42\0\0", "a film, recording or picture (MP4, HEIF)"),
    ("a.txt", lambda: b"%!PS-Adobe-3.0\n", "a PostScript document"),
    ("a.txt", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a document of an old office program"),
]  # fmt: skip
BAD = [*EMPTY, *TRUNCATED, *ENCRYPTED, *NO_TEXT, *BOMBS, *DAMAGED, *STRICT, *WRONG_TYPES, *NUL, *LYING]


def test_there_are_many_ways_to_be_bad() -> None:
    assert len(BAD) >= 120


@pytest.mark.parametrize(
    ("name", "make", "reason"), BAD, ids=[f"{number}-{row[0]}" for number, row in enumerate(BAD)]
)
def test_a_bad_file_is_refused_in_one_line(
    name: str, make: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    said = refused_as(tmp_path, name, make())
    assert reason in said
    assert said.count("\n") == 0
    assert len(said) < 300
