"""Text in whatever encoding: read, or refused with the byte's position."""

import codecs
import random

import pytest

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded, is_text
from chunkstore.ingest.utf16 import unmarked_utf16
from tests.unit.formats.fix_files import FILES, read

GERMAN = "Größere Straßenbäume überdauern häufig längere Dürren. "
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. "
NOISE = random.Random(1).randbytes(3_000).translate(None, bytes(range(33)))
ENCODED = sorted(path.name for path in (FILES / "encodings").iterdir())


def why_not(content: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        decoded(content)
    return str(caught.value)


@pytest.mark.parametrize("name", ENCODED)
def test_a_text_that_iconv_wrote_is_read_whatever_its_encoding(name: str) -> None:
    original = (FILES / "sources" / "texts" / f"{name.partition('.')[0]}.txt").read_text(encoding="utf-8")
    assert read(f"encodings/{name}").text == original


def test_the_encodings_of_many_languages_are_tried() -> None:
    assert len(ENCODED) >= 28


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
     (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")],
)  # fmt: skip
def test_a_byte_order_mark_tells_the_encoding_and_is_no_part_of_the_text(mark: bytes, encoding: str) -> None:
    assert decoded(mark + "Grüße 😀".encode(encoding)) == "Grüße 😀"


def test_the_encoding_is_told_even_after_a_long_preface_in_ascii() -> None:
    text = "plain words in English, line after line\n" * 10_000 + GERMAN * 20
    assert decoded(text.encode("latin-1")) == text


@pytest.mark.parametrize("word", ["Straße", "naïve café", "Zoë", "façade", "10 €", "don’t", "Müller, Jürgen"])
def test_a_few_letters_outside_ascii_are_taken_for_western_ones(word: str) -> None:
    assert decoded(word.encode("cp1252")) == word


@pytest.mark.parametrize(
    "declaring",
    [
        "# -*- coding: koi8-r -*-\nname = 'да'\n",
        "<?xml version='1.0' encoding='KOI8-R'?>\n<a>да</a>\n",
        "<html><head><meta charset=koi8-r></head><body>да</body></html>\n",
        '<html><head><meta http-equiv="Content-Type" content="text/html; charset=koi8-r"></head>да</html>\n',
    ],
)
def test_what_a_text_declares_is_believed_before_what_its_letters_suggest(declaring: str) -> None:
    assert decoded(declaring.encode("koi8-r")) == declaring


def test_a_declaration_that_is_no_encoding_or_the_wrong_one_is_passed_over() -> None:
    for declared in ("no-such", "ascii", "utf-16"):
        text = f"# coding: {declared}\n" + GERMAN
        assert decoded(text.encode("cp1252")) == text


def test_lists_of_words_that_are_no_sentences_are_read_where_most_is_ascii() -> None:
    words = "".join(
        f"key_{number} = {word}\n" for number, word in enumerate(["größe", "weiß", "köln", "süd"] * 3)
    )
    assert decoded(words.encode("cp1252")) == words


def test_valid_utf_8_is_read_as_nothing_else() -> None:
    text = "# coding: latin-1\nÃ¤ is no ä"
    assert decoded(text.encode()) == text


@pytest.mark.parametrize(
    ("label", "meant"), [("iso-8859-1", "cp1252"), ("gb2312", "gb18030"), ("utf-16", "cp1252")]
)
def test_a_declared_encoding_is_what_programs_mean_by_it(label: str, meant: str) -> None:
    words = "囍 朱镕基總理" if meant == "gb18030" else "It’s “smart” – café naïve résumé déjà vu"
    text = f'<?xml version="1.0" encoding="{label}"?><p>{words}</p>'
    content = text.encode(meant)
    assert decoded(content + b" " * (len(content) % 2)).rstrip() == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"words\0words", "a binary file: it holds a NUL byte at position 5"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08" * 50, "read as utf-8 it holds 400 control characters"),
        (codecs.BOM_UTF16_LE + b"a\0b", "not valid utf-16-le: truncated data at position 4"),
        (codecs.BOM_UTF16_LE + "a\0b".encode("utf-16-le"), "read as utf-16-le it holds a NUL at character 1"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8a\0", "not valid utf-16-le: illegal UTF-16 surrogate at position 2"),
        (codecs.BOM_UTF8 + b"abc\xff", "not valid utf-8: invalid start byte at position 6"),
        (b"abc \xc5" + NOISE, "the byte 0xC5 at position 4 is no UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_with_the_position(content: bytes, reason: str) -> None:
    assert reason in why_not(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"\0\0", b"a\0\0\0b\0\0\0", b"\x7fELF\2\1\1\0" + b"\0" * 8, bytes(range(256)) * 4, b"a\0b"],
)
def test_what_only_holds_nul_bytes_is_not_taken_for_utf_16(content: bytes) -> None:
    assert unmarked_utf16(content) is None


def test_utf_16_without_a_mark_is_told_by_its_beginning_too() -> None:
    long = (RUSSIAN * 2_000).encode("utf-16-be")
    assert unmarked_utf16(long) == unmarked_utf16(long[:8_192]) == "utf-16-be"
    assert is_text(long[:8_192])


SENTENCES = {
    "ru": "Корабль вышел в море ранним утром, и капитан записал всё в журнал. ",
    "el": "Το πλοίο έφυγε από το λιμάνι νωρίς το πρωί και ο καπετάνιος το έγραψε. ",
    "he": "הספינה יצאה מהנמל מוקדם בבוקר והקברניט רשם הכול ביומן. ",
    "ar": "غادرت السفينة الميناء في الصباح الباكر وكتب القبطان كل شيء. ",
    "th": "เรือออกจากท่าเรือแต่เช้าตรู่ และกัปตันจดบันทึกทุกอย่างไว้ ",
    "ja": "船は早朝に港を出て、船長はすべてを日誌に書いた。",
    "zh": "船清晨离开港口，船长把一切都写进了日志。",
    "ko": "배는 이른 아침 항구를 떠났고 선장은 모든 것을 일지에 적었다. ",
    "de": "Schöne Grüße aus dem Hafen, übermäßig früh. ",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy. ",
}


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize(
    "damage", [b"\xff", "naïve".encode("latin-1"), b"\xe2\x82"], ids=["byte", "word", "cut"]
)
def test_utf8_that_is_damaged_in_one_place_is_refused_with_its_position(language: str, damage: bytes) -> None:
    text = SENTENCES[language].encode() * 3
    at = len(text) + next(i for i, byte in enumerate(damage) if byte > 0x7F)
    with pytest.raises(UnreadableFile, match=rf"damaged UTF-8: the byte 0x\w\w at position {at:,} "):
        decoded(text + damage + b" " + text)


LEGACY = [
    ("fr", "Été à l'île, élève où ça gêne. ", "cp850"),
    ("fr", "Été à l'île, élève où ça gêne. ", "cp437"),
    ("cs", SENTENCES["cs"], "cp1250"),
    ("cs", SENTENCES["cs"], "iso8859-2"),
    ("cs", SENTENCES["cs"], "cp852"),
    ("ru", SENTENCES["ru"], "cp866"),
    ("ru", SENTENCES["ru"], "koi8-r"),
    ("el", SENTENCES["el"], "cp737"),
    ("th", SENTENCES["th"], "tis-620"),
    ("ja", SENTENCES["ja"], "euc-jp"),
    ("ko", SENTENCES["ko"], "johab"),
]


@pytest.mark.parametrize(("language", "sentence", "encoding"), LEGACY)
def test_no_word_is_read_in_two_scripts_and_no_legacy_text_is_taken_for_damaged_utf8(
    language: str, sentence: str, encoding: str
) -> None:
    text = sentence * 5
    assert decoded(text.encode(encoding)) == text
