"""PDF: words, headings, pages and reading order, of files that LibreOffice, Chromium and TeX made."""

import pytest

from tests.unit.formats.fix_files import FILES, page_of, read, refused

MAKERS = ["chromium.pdf", "writer.pdf"]
SENTENCES = [
    "Gezählt wurde im März.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "الشمس مشرقة فوق المدينة والناس يذهبون إلى العمل في الصباح 25 مرة.",
    "השמש זורחת מעל העיר והאנשים הולכים לעבודה בשעה 8:30 בבוקר (ABC).",
    "吾輩は猫である。名前はまだ無い。猫はまだ吾輩である。名前である猫はまだ無い。吾輩はまだ猫である。名前は猫である。無い名前はまだ無い。",
    "有朋自远方来，不亦乐乎？",
]
HEADINGS = [
    "# Bericht über die Straßenbäume",
    "## Zählung",
    "## Maßnahmen",
    "## По-русски",
    "## الأشجار في المدينة",
    "## עצים בעיר",
    "## 街路樹",
    "## 树木",
]


@pytest.mark.parametrize("name", MAKERS)
def test_each_language_is_read_in_the_order_in_which_people_read_it(name: str) -> None:
    lines = read(name).text.split("\n")
    assert [sentence for sentence in SENTENCES if sentence not in lines] == []


@pytest.mark.parametrize("name", MAKERS)
def test_larger_letters_make_headings(name: str) -> None:
    assert [line for line in read(name).text.split("\n") if line.startswith("#")] == HEADINGS


@pytest.mark.parametrize("name", MAKERS)
def test_a_row_of_a_table_is_a_line(name: str) -> None:
    assert "Stadt Bäume Anteil\nKöln 1204 41 %\nMünchen 987 33 %" in read(name).text


@pytest.mark.parametrize("name", MAKERS)
def test_pages_begin_where_they_begin_in_the_file(name: str) -> None:
    document = read(name)
    assert len(document.pages) == 2
    assert page_of(document, "## 街路樹") == 1
    assert document.text[document.pages[1] :].startswith("## 树木")


def test_bullets_of_an_office_document_are_list_items() -> None:
    assert "- Gießen in der Nacht\n- Schatten für die Wurzeln\n- mit Stroh" in read("writer.pdf").text


def test_slides_printed_as_a_pdf_keep_right_to_left_bullets_in_front() -> None:
    document = read("impress.pdf")
    assert "# كم مرة\n\n- مرة في الأسبوع\n- 每周一次" in document.text
    assert page_of(document, "كم مرة") == 4


def test_two_columns_of_tex_are_read_one_after_the_other() -> None:
    document = read("pdflatex.pdf")
    headings = [line for line in document.text.split("\n") if line.startswith("#")]
    assert headings == [
        "# On the Größe of things",
        "## 1 Introduction",
        "### 1.1 Things to do",
        "## 2 The second column",
        "## 3 The second page",
    ]
    assert [page_of(document, words) for words in ("top of the second column", "naïve façade")] == [1, 2]


def test_ligatures_are_letters_and_hyphenated_words_are_whole() -> None:
    text = read("pdflatex.pdf").text
    for words in ("office of efficient affairs is difficult", "extraordinarily uncharacteristic", "Übrigens"):
        assert words in text


def test_a_line_after_a_hyphenated_word_goes_on_with_its_paragraph() -> None:
    assert "of the internationalization\nconsiderations there." in read("pdflatex.pdf").text


def test_an_indented_line_begins_a_paragraph() -> None:
    assert "considerations there.\n\nA second paragraph" in read("pdflatex.pdf").text


def test_xetex_writes_four_scripts_that_are_read_in_order() -> None:
    lines = read("xelatex.pdf").text.split("\n")
    for line in ("# По-русски", "النهر طويل وماؤه بارد في الشتاء.", "הנהר ארוך ומימיו קרים בחורף."):
        assert line in lines
    assert "河水流过山谷、名前はまだ無い。" in lines


@pytest.mark.parametrize("name", ["linearized.pdf", "unprintable.pdf"])
def test_a_pdf_that_forbids_printing_or_is_laid_out_for_the_web_reads_the_same(name: str) -> None:
    assert read(name).text == read("xelatex.pdf").text


def test_a_pdf_that_needs_a_password_says_so() -> None:
    assert refused(FILES / "encrypted.pdf") == "encrypted: a password is needed to read it"


def test_a_pdf_of_pictures_says_how_many_pages_it_has() -> None:
    assert refused(FILES / "images.pdf") == "no text: 2 pages of images; OCR is not done here"
