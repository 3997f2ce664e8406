"""E-mail that Mutt wrote, and some that only broken programs write."""

import base64
from email.message import EmailMessage
from pathlib import Path

import pytest

from chunkstore.errors import UnreadableFile
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
    assert (document.kind, document.parser) == ("markdown", "mail/2")


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


def letter(kind: str, body: bytes, **parameters: str) -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "a@example.org", "Report"
    message.set_content(body, *kind.split("/"), params=parameters)
    return bytes(message)


def two_parts() -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "a@example.org", "Report"
    message.set_content("Der Hafen. " * 200, cte="base64")
    message.add_attachment(b"\x89PNG" * 500, "image", "png", filename="photo.png")
    return bytes(message)


@pytest.mark.parametrize("cut", [0.3, 0.301, 0.302, 0.303, 0.6, 0.95])
def test_a_letter_that_is_cut_off_says_so(tmp_path: Path, cut: float) -> None:
    content = two_parts()
    assert "Der Hafen." in parsed_as(tmp_path, "whole.eml", content).text
    with pytest.raises(UnreadableFile, match="truncated"):
        parsed_as(tmp_path, "cut.eml", content[: int(len(content) * cut)])


def test_a_body_of_base64_that_is_cut_off_says_so(tmp_path: Path) -> None:
    head = b"From: a@example.org\nSubject: hi\nContent-Transfer-Encoding: base64\n\n"
    encoded = base64.b64encode(b"Der Hafen. " * 9)
    for length in (41, 42, 43):
        with pytest.raises(UnreadableFile, match="truncated"):
            parsed_as(tmp_path, "cut.eml", head + encoded[:length])


ENCRYPTED = {
    "S/MIME": letter("application/pkcs7-mime", b"\x30\x80" * 50, **{"smime-type": "enveloped-data"}),
    "PGP/MIME": (
        b'From: a@example.org\nSubject: hi\nContent-Type: multipart/encrypted; boundary="b"\n\n'
        b"--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n"
        b"--b\nContent-Type: application/octet-stream\n\n-----BEGIN PGP MESSAGE-----\n--b--\n"
    ),
    "PGP": b"From: a@example.org\nSubject: hi\n\n-----BEGIN PGP MESSAGE-----\n\nhQEM\n",
}


@pytest.mark.parametrize("name", ENCRYPTED)
def test_an_encrypted_letter_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableFile, match="encrypted: a key is needed"):
        parsed_as(tmp_path, "a.eml", ENCRYPTED[name])


def test_letters_without_text_of_their_own_say_why(tmp_path: Path) -> None:
    signed = letter("application/pkcs7-mime", b"\x30\x80" * 50, **{"smime-type": "signed-data"})
    with pytest.raises(UnreadableFile, match="inside its signature"):
        parsed_as(tmp_path, "a.eml", signed)
    with pytest.raises(UnreadableFile, match="images alone"):
        parsed_as(tmp_path, "a.eml", letter("image/png", b"\x89PNG" * 50))
