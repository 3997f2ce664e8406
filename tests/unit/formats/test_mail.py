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


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"From: [Bot] Name <bot@example.org>", "From: [Bot] Name <bot@example.org>"),
        (b"From: jdoe at example.org (John Doe)", "From: jdoe at example.org (John Doe)"),
        (b"From: Support @ Acme <s@example.org>", "From: Support @ Acme <s@example.org>"),
        (b"From: =?utf-8?q?Zo=C3=AB?= <zoe@example.org>", "From: Zoë <zoe@example.org>"),
        (b"From: =?iso-8859-1?q?It=92s?= me", "From: It\N{RIGHT SINGLE QUOTATION MARK}s me"),
        (b"From: =?x-unknown?q?Zo=EB?= me", "From: Zoë me"),
        (b"From: =?utf-8?b?Z?= me", "From: =?utf-8?b?Z?= me"),
        (b"From: =?utf-8?q?Zo=C3?=\n =?utf-8?q?=AB_?= =?utf-8?q?B=2E?= me", "From: Zoë B. me"),
        ("From: Иван =?utf-8?q?Zo=C3=AB?=".encode(), "From: Иван Zoë"),
        (b"From: " + "Иван Ёлкин".encode()[:-1] + b" me", "From: Иван Ёлки\ufffd me"),
        (b"From: J\xfcrgen <j@example.org>", "From: Jürgen <j@example.org>"),
        ("From: Jürgen <j@example.org>".encode(), "From: Jürgen <j@example.org>"),
        (b"To: ann@x.org; bob@y.org;\n Carl <carl@z.org>", "To: ann@x.org; bob@y.org; Carl <carl@z.org>"),
        (b"To: a@x.org\nTo: b@y.org", "To: a@x.org, b@y.org"),
    ],
)
def test_headers_are_kept_as_they_are_written_but_for_their_encoding(
    tmp_path: Path, written: bytes, shown: str
) -> None:
    content = written + b"\nSubject: s\n\nwords\n"
    assert parsed_as(tmp_path, "a.eml", content).text == f"# s\n\n{shown}\n\nwords\n"


@pytest.mark.parametrize("label", ["iso-8859-1", "us-ascii", "windows-1252"])
def test_a_label_of_western_text_is_what_programs_mean_by_it(tmp_path: Path, label: str) -> None:
    text = "“smart” – café €"
    head = f"From: a@x\nSubject: s\nContent-Type: text/plain; charset={label}\n\n".encode()
    for encoding in ("cp1252", "utf-8"):
        assert text in parsed_as(tmp_path, "a.eml", head + text.encode(encoding)).text


def test_files_of_an_alternative_that_is_not_read_are_named(tmp_path: Path) -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "a@example.org", "s"
    message.set_content("plain")
    message.add_alternative("<p>rich <img src='cid:logo'></p>", "html")
    rich = message.get_payload()[1]
    rich.add_related(b"GIF89a", "image", "gif", cid="<logo>", filename="logo.gif", disposition="inline")
    rich.add_attachment(b"%PDF-1.7", "application", "pdf", filename="report.pdf")
    message.attach(EmailMessage())
    message.get_payload()[2].set_content("BEGIN:VCALENDAR", "calendar", filename="invite.ics")
    text = parsed_as(tmp_path, "a.eml", bytes(message)).text
    assert text.endswith(
        "plain\n\nAttachments:\n\n- report.pdf (application/pdf)\n- invite.ics (text/calendar)\n"
    )


def test_an_encoded_message_and_a_report_of_delivery_are_read(tmp_path: Path) -> None:
    inner = base64.b64encode(b"Subject: inner\nFrom: i@example.org\n\ninner words\n")
    content = (
        b"Subject: outer\nFrom: a@example.org\nMIME-Version: 1.0\n"
        b"Content-Type: multipart/report; boundary=b\n\n"
        b"--b\nContent-Type: message/delivery-status\n\n"
        b"Reporting-MTA: dns; mx.example.org\n\nFinal-Recipient: rfc822; bob@example.org\n\n"
        b"--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + inner + b"\n--b--\n"
    )
    assert parsed_as(tmp_path, "a.eml", content).text.endswith(
        "Reporting-MTA: dns; mx.example.org\nFinal-Recipient: rfc822; bob@example.org\n\n"
        "### inner\n\nFrom: i@example.org\n\ninner words\n"
    )


def test_a_saved_page_is_read_without_its_style_sheets(tmp_path: Path) -> None:
    content = (
        b"From: <Saved by a browser>\nSubject: page\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/related; type="text/html"; boundary=b\n\n'
        b"--b\nContent-Type: text/html\n\n<p>words</p>\n"
        b"--b\nContent-Type: text/css\n\nbody { color: red }\n--b--\n"
    )
    text = parsed_as(tmp_path, "a.mhtml", content).text
    assert text == "# page\n\nFrom: <Saved by a browser>\n\nwords\n"


def test_lines_that_flow_on_within_a_word_are_joined(tmp_path: Path) -> None:
    content = (
        b"Subject: s\nFrom: a@x\nContent-Type: text/plain; format=flowed; delsp=yes\n\n"
        b"one para \ngraph\n-- \nsigned\n"
    )
    assert parsed_as(tmp_path, "a.eml", content).text.endswith("\n\none paragraph\n\\-- \nsigned\n")


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
