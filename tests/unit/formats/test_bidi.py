"""Right-to-left text put in order by place alone, whichever order and brackets its maker wrote."""

import random

import pytest

from chunkstore.ingest.formats.bidi import Glyph, is_right_to_left, logical

MIRRORED = str.maketrans("()[]", ")(][")


def glyphs(shown: str) -> list[Glyph]:
    """The characters as they stand on the page, from left to right."""
    return [Glyph(char, float(place)) for place, char in enumerate(shown)]


@pytest.mark.parametrize(
    ("shown", "read"),
    [
        ("םלוע םולש", "שלום עולם"),
        (".(ABC) רקובב 8:30 העשב", "בשעה 8:30 בבוקר (ABC)."),
        (".ةرم 25 حابصلا يف", "في الصباح 25 مرة."),
        ("It is םולש in peace, and םלוע to all.", "It is שלום in peace, and עולם to all."),
        ("םולש Hello World 123 םולש", "שלום Hello World 123 שלום"),
        ("וא 25% ריחמ", "מחיר 25% או"),
        ("%25 رعسلا", "السعر 25%"),
        ("היה 12/05/2024-ב", "ב-12/05/2024 היה"),
        ("8 مث 567 و ١٢٣٤ ددعلا", "العدد ١٢٣٤ و 567 ثم 8"),
        ("[םלוע] (םולש)", "(שלום) [עולם]"),
        ("plain (words)", "plain (words)"),
    ],
)  # fmt: skip
def test_a_line_is_read_in_logical_order(shown: str, read: str) -> None:
    assert logical(glyphs(shown)) == read
    shuffled = glyphs(shown)
    random.Random(1).shuffle(shuffled)
    assert logical(shuffled) == read


def test_brackets_open_and_close_whether_or_not_their_mirror_images_were_written() -> None:
    shown = "[םלוע] (םולש)"
    assert logical(glyphs(shown.translate(MIRRORED))) == logical(glyphs(shown))


def test_the_letters_of_a_ligature_stay_in_order() -> None:
    lam_alef = [Glyph("ا", 3.0), Glyph("ل", 3.0), Glyph("س", 1.0)]
    assert logical(lam_alef) == "لاس"


def test_a_line_is_known_by_any_letter() -> None:
    assert [is_right_to_left(text) for text in ("abc 12", "abc א", "ي", "漢字")] == [False, True, True, False]
