"""E-mail that Mutt wrote, and some that only broken programs write."""

from pathlib import Path

from tests.unit.formats.fix_files import parsed_as, read

HEAD = "# Grüße aus Köln und 東京\n\nFrom: Nobody <nobody@example.org>\nTo: Zoë <zoe@example.org>\nDate: "
BODY = (
    "Liebe Grüße aus Köln!\n\n\\# This line is no heading\nThe trees are well: 树木 and عشر أشجار.\n"
    "\\-- \nNobody\n"
)


def test_a_letter_is_read_with_its_decoded_headers() -> None:
    document = read("mutt.eml")
    assert document.text.startswith(HEAD)
    assert document.text.endswith(BODY)
    assert (document.kind, document.parser) == ("markdown", "mail/1")


def test_of_a_body_sent_twice_the_plain_one_is_read() -> None:
    document = read("mutt-alternative.eml")
    assert document.text.endswith(BODY)
    assert document.text.count("Grüße") == 2


def test_attachments_are_named_and_enclosed_letters_read() -> None:
    text = read("mutt-attached.eml").text
    assert text.endswith("Attachments:\n\n- table.fods (text/plain)\n")
    assert text.count("The trees are well") == 2
    assert "### Grüße aus Köln und 東京" in text
    assert "office:document" not in text


def test_a_letter_in_html_alone_is_markdown(tmp_path: Path) -> None:
    content = (
        b"Subject: hi\nFrom: a@example.org\nMIME-Version: 1.0\n"
        b"Content-Type: text/html; charset=iso-8859-1\n\n<h1>Gr\xfc\xdfe</h1><ul><li>one<li>two</ul>"
    )
    text = parsed_as(tmp_path, "a.eml", content).text
    assert text == "# hi\n\nFrom: a@example.org\n\n# Grüße\n\n- one\n- two\n"


def test_an_unknown_charset_and_a_blank_plain_part_are_no_obstacle(tmp_path: Path) -> None:
    content = (
        b"Subject: hi\nFrom: a@example.org\nMIME-Version: 1.0\n"
        b"Content-Type: multipart/alternative; boundary=b\n\n"
        b"--b\nContent-Type: text/plain\n\n \n"
        b"--b\nContent-Type: text/html; charset=x-unknown\n\n<p>Stra\xdfe</p>\n--b--\n"
    )
    assert parsed_as(tmp_path, "a.eml", content).text == "# hi\n\nFrom: a@example.org\n\nStraße\n"
