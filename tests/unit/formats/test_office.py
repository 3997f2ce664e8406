"""Word, PowerPoint and Excel files that LibreOffice and pandoc made."""

import re
import zipfile
from pathlib import Path

import openpyxl
import pytest

from chunkstore.ingest import parsers
from tests.unit.formats.fix_bad_files import changed, made, made_part
from tests.unit.formats.fix_files import FILES, page_of, parsed_as, read, refused, refused_as
from tests.unit.formats.test_pdf import HEADINGS, SENTENCES


def test_a_document_of_writer_keeps_its_words_and_headings() -> None:
    lines = read("writer.docx").text.split("\n")
    assert [sentence for sentence in SENTENCES if sentence not in lines] == []
    assert [line for line in lines if line.startswith("#")] == HEADINGS


def test_a_document_of_writer_keeps_tables_and_nested_lists() -> None:
    text = read("writer.docx").text
    assert (
        "| Stadt | Bäume | Anteil |\n| --- | --- | --- |\n| Köln | 1204 | 41 % |\n| München | 987 | 33 % |"
        in text
    )
    assert "- Gießen in der Nacht\n- Schatten für die Wurzeln\n  - mit Stroh" in text


def test_a_document_of_pandoc_keeps_title_code_and_notes() -> None:
    document = read("pandoc.docx")
    assert document.text.startswith("# A small book of rivers\n\nNobody\n\n# The first river\n\n")
    assert '```\ndef depth(place):\n    return {"ford": 1}[place]\n```' in document.text
    assert "it is **cold**.[1]" in document.text
    assert "1. Measured in March." in document.text
    assert "| Ford | 1 m |\n| Weir | 4 m |" in document.text
    assert (
        "# النهر الثالث\n\nالنهر طويل وماؤه بارد في الشتاء.\n\n# 第四条河\n\n河水流过山谷，鱼在水中游。"
        in document.text
    )
    assert (document.kind, document.pages, document.parser) == ("markdown", (), "docx/2")


def run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


def document_of(body: str, insert: str = "", content: str | bytes = "") -> bytes:
    """A Word document with this body, and with one part that it inserts whole."""
    space = "http://schemas.openxmlformats.org"
    return changed(
        "writer.docx",
        {
            "word/document.xml": f'<w:document xmlns:w="{space}/wordprocessingml/2006/main" '
            f'xmlns:r="{space}/officeDocument/2006/relationships"><w:body>{body}</w:body></w:document>',
            "word/_rels/document.xml.rels": '<Relationships xmlns="'
            f'{space}/package/2006/relationships"><Relationship Id="part_1" Target="{insert}" '
            f'Type="{space}/officeDocument/2006/relationships/aFChunk"/></Relationships>',
            f"word/{insert}": content,
        },
    )


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (f'<w:bdo w:val="rtl">{run("over")}</w:bdo>', "aoverb"),
        (f'<w:dir w:val="rtl">{run("over")}</w:dir>', "aoverb"),
        (f'<w:fldSimple w:instr="SEQ Figure">{run("1")}</w:fldSimple>', "a1b"),
        (
            f"<w:r><w:ruby><w:rt>{run('とうきょう')}</w:rt><w:rubyBase>{run('東京')}</w:rubyBase></w:ruby></w:r>",
            "a東京b",
        ),
        ("<w:r><w:cr/></w:r>", "a b"),
        ('<w:r><w:ptab w:alignment="right"/></w:r>', "a b"),
    ],
)
def test_words_of_a_document_in_elements_that_mammoth_does_not_know_are_kept(
    inside: str, text: str, tmp_path: Path
) -> None:
    content = document_of(f"<w:p>{run('a')}{inside}{run('b')}</w:p>")
    assert " ".join(parsed_as(tmp_path, "a.docx", content).text.split()) == text


INSERTING = (
    f"<w:p>{run('one')}</w:p><w:altChunk r:id='part_1'><w:altChunkPr/></w:altChunk><w:p>{run('three')}</w:p>"
)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.html", "<html><body><h1>Two</h1><p>words</p></body></html>", "# Two\n\nwords"),
        ("a.txt", "# two\n", "\\# two"),
        ("a.mht", "MIME-Version: 1.0\nContent-Type: text/html\n\n<h1>Two</h1>", "# Two"),
    ],
)
def test_what_is_inserted_whole_into_a_document_is_read_in_its_place(
    name: str, content: str, text: str, tmp_path: Path
) -> None:
    document = parsed_as(tmp_path, "a.docx", document_of(INSERTING, name, content))
    assert document.text == f"one\n\n{text}\n\nthree\n"


def test_a_document_in_a_document_is_refused_and_not_lost(tmp_path: Path) -> None:
    content = document_of(INSERTING, "a.docx", made("writer.docx"))
    assert "its part 'word/a.docx' is a document inside it" in refused_as(tmp_path, "a.docx", content)


def test_a_slide_is_a_page_with_its_title_text_and_notes() -> None:
    for name in ("pandoc.pptx", "impress.pptx"):
        document = read(name)
        assert document.text == (
            "## Water for trees\n\nNobody\n\n"
            "## Why water\n\n- Roots drink at night\n  - in summer above all\n- Blätter brauchen Kühlung\n\n"
            "Say this slowly.\n\n"
            "## How much\n\n| Tree | Litres |\n| --- | --- |\n| Oak | 80 |\n| Lime | 60 |\n\n"
            "## كم مرة\n\n- مرة في الأسبوع\n- 每周一次\n\n"
        )
        titles = ("Water for trees", "Why water", "Say this slowly", "How much", "كم مرة")
        assert [page_of(document, words) for words in titles] == [1, 2, 2, 3, 4]


def test_a_document_whose_body_is_under_another_name_is_read(tmp_path: Path) -> None:
    moved: dict[str, str | None] = {
        name: made_part("writer.docx", name).replace("word/document.xml", "word/document2.xml")
        for name in ("_rels/.rels", "[Content_Types].xml")
    }
    moved |= {"word/document.xml": None, "word/document2.xml": made_part("writer.docx", "word/document.xml")}
    assert SENTENCES[0] in parsed_as(tmp_path, "a.docx", changed("writer.docx", moved)).text


def slide_with(shapes: str, **parts: str) -> bytes:
    """A presentation of Impress with these shapes at the end of its first slide, and with these parts."""
    relations = "".join(
        f'<Relationship Id="{name}" Target="{name}.xml" Type="http://schemas.openxmlformats.org/x"/>'
        for name in parts
    )
    members = {
        "ppt/slides/slide1.xml": (shapes, "</p:spTree>"),
        "ppt/slides/_rels/slide1.xml.rels": (relations, "</Relationships>"),
    }
    return changed(
        "impress.pptx",
        {
            name: made_part("impress.pptx", name).replace(end, added + end)
            for name, (added, end) in members.items()
        }
        | {f"ppt/slides/{name}.xml": content for name, content in parts.items()},
    )


def box(text: str, number: int) -> str:
    """A text box; the title of every slide has the number 1 or more."""
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="{number}" name="x"/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/>'
        f"<p:txBody><a:bodyPr/><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )


def test_a_text_box_with_the_number_of_the_title_is_kept(tmp_path: Path) -> None:
    source = made_part("impress.pptx", "ppt/slides/slide1.xml")
    number = int(re.findall(r'<p:cNvPr id="(\d+)"', source)[1])
    text = parsed_as(tmp_path, "a.pptx", slide_with(box("boxed", number))).text
    assert text.startswith("## Water for trees\n\nNobody\n\nboxed\n\n## Why water")


def test_of_what_a_slide_holds_for_programs_of_two_ages_the_newer_is_read(tmp_path: Path) -> None:
    space = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    alternatives = (
        f'<mc:AlternateContent {space}><mc:Choice Requires="p">{box("new", 90)}'
        '<p:contentPart r:id="no"/></mc:Choice>'
        f"<mc:Fallback>{box('old', 91)}</mc:Fallback></mc:AlternateContent>"
    )
    text = parsed_as(tmp_path, "a.pptx", slide_with(alternatives)).text
    assert text.startswith("## Water for trees\n\nNobody\n\nnew\n\n## Why water")


FRAME = (
    '<p:graphicFrame><p:nvGraphicFramePr><p:cNvPr id="90" name="x"/><p:cNvGraphicFramePr/><p:nvPr/>'
    "</p:nvGraphicFramePr>"
    "<a:graphic><a:graphicData uri='x'>{}</a:graphicData></a:graphic></p:graphicFrame>"
)
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006"
SPACES = f'xmlns:a="{DRAWING}/main" xmlns:c="{DRAWING}/chart" xmlns:dgm="{DRAWING}/diagram"'


DIAGRAM = (
    f"<dgm:dataModel {SPACES}><a:p><a:r><a:t>Ro</a:t></a:r><a:r><a:t>ot</a:t></a:r></a:p>"
    "<a:p><a:r><a:t>Leaf</a:t></a:r></a:p><a:p/></dgm:dataModel>"
)
OAK = "<c:strCache><c:pt><c:v>Oak</c:v></c:pt></c:strCache>"
CHART = f"<c:chartSpace {SPACES}>{OAK}<c:numCache><c:pt><c:v>80</c:v></c:pt></c:numCache>{OAK}</c:chartSpace>"


@pytest.mark.parametrize(
    ("shown", "source", "text"),
    [
        (f'<dgm:relIds {SPACES} r:dm="drawn"/>', DIAGRAM, "Root\nLeaf"),
        (f'<c:chart {SPACES} r:id="drawn"/>', CHART, "Oak"),
    ],
)
def test_the_words_of_diagrams_and_charts_are_read(
    shown: str, source: str, text: str, tmp_path: Path
) -> None:
    document = parsed_as(tmp_path, "a.pptx", slide_with(FRAME.format(shown), drawn=source))
    assert document.text.startswith(f"## Water for trees\n\nNobody\n\n{text}\n\n## Why water")


def test_a_sheet_is_a_page_with_a_row_a_line() -> None:
    document = read("calc.xlsx")
    assert document.text == (
        "## Bäume\n\n"
        "| Stadt | Bäume | Gepflanzt |\n| --- | --- | --- |\n| Köln, Süd | 1204 | 2024-03-01 |\n"
        '| القاهرة | 0.5 |\n| 東京 "都" | 2408 | 1 |\n\n'
        "## Notes\n\n| a \\| b second line |\n| --- |\n\n"
    )
    assert len(document.pages) == 3
    assert [page_of(document, words) for words in ("Stadt", "second line")] == [1, 3]


def test_encrypted_and_old_documents_say_what_they_are() -> None:
    assert refused(FILES / "encrypted.docx") == "encrypted: a password is needed to read it"
    assert "a Word 97-2003 document" in refused(FILES / "writer.doc")
    assert "an Excel 97-2003 workbook" in refused(FILES / "calc.xls")
    assert "a Rich Text document" in refused(FILES / "writer.rtf")
    assert "an OpenDocument file" in refused(FILES / "writer.odt")


def test_a_lone_cell_far_to_the_right_is_one_cell(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet["XFD1048576"] = "far cell"
    sheet["B2"] = "near"
    book.save(tmp_path / "far.xlsx")
    text = parsers.parse(tmp_path / "far.xlsx").text
    assert "| near |" in text
    assert "|  | far cell |" in text
    assert len(text) < 200


def test_a_sheet_that_is_an_empty_chart_hides_no_other(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active["A1"] = "words"
    book.create_chartsheet("C")
    book.save(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        assert "xl/chartsheets/sheet1.xml" in archive.namelist()
    assert "| words |" in parsers.parse(tmp_path / "a.xlsx").text


def test_a_number_is_written_with_the_zeros_that_its_format_is(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row, (value, number_format) in enumerate(
        [(123, "00000"), (-5, "000"), (7.5, "00"), ("9", "00"), (4.0, "00"), (8, "0"), (True, "00")], 1
    ):
        book.active.cell(row, 1, value).number_format = number_format
    book.save(tmp_path / "a.xlsx")
    text = parsers.parse(tmp_path / "a.xlsx").text
    assert text.split("\n")[2:] == [
        *("| 00123 |", "| --- |", "| -5 |", "| 7.5 |", "| 9 |", "| 04 |", "| 8 |", "| TRUE |", "", ""),
    ]
