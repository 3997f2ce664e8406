"""E-mail as Markdown: the subject as heading, who wrote to whom and when, the body, the names of attachments.

Read by the standard library. Of a body that is sent twice the plain text is taken, unless it is blank.
Attachments are named and not opened; messages inside the message are read. Headers stay as they are written,
but for what is encoded in them: an address is not always one that a parser understands.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from email import errors, policy
from email.header import decode_header
from email.message import EmailMessage
from email.parser import BytesParser

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import labelled
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.html import to_markdown
from chunkstore.ingest.formats.marking import blocks, heading, one_line, plain

_CUT_OFF = (
    errors.StartBoundaryNotFoundDefect,
    errors.CloseBoundaryNotFoundDefect,
    errors.InvalidBase64PaddingDefect,
    errors.InvalidBase64LengthDefect,
)
_ENCRYPTED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted"})
_ARMOUR = "-----BEGIN PGP MESSAGE-----"
_FOR_PROGRAMS = frozenset({"text/css", "text/javascript"})
"""What a saved page brings along: neither text to read nor a file that somebody attached."""

_HEADERS = ("From", "To", "Cc", "Date")
_MAX_DEPTH = 20
_LONGEST_HEADER = 10_000
"""Characters of a header that are decoded: the time for that may grow with the square of its length."""
_WORD = r"=\?[^?\s]{1,60}\?[bBqQ]\?[^?]*\?="
_ENCODED = re.compile(rf"{_WORD}(?:\s+{_WORD})*")
"""Encoded words (RFC 2047), and what stands between two of them."""
_FLOWS_ON = re.compile(r"(?<!\n--) \n(?!>)")
"""Where a line of `delsp=yes` goes on (RFC 3676, 4.1); the line above a signature does not."""


def read(content: bytes) -> Document:
    """The message. Raises UnreadableFile for what has no header of an e-mail, or no text at all."""
    message = _parsed(content)
    if not any(name in message for name in (*_HEADERS, "Subject", "Message-ID", "MIME-Version")):
        raise UnreadableFile("not an e-mail: it does not begin with the headers of one")
    text = blocks(_written(message, 0))
    parts = [part for part in message.walk() if not part.is_multipart()]
    if any(isinstance(defect, _CUT_OFF) for part in message.walk() for defect in part.defects):
        raise UnreadableFile("truncated: the message ends in the middle of a part")
    if not text:
        raise UnreadableFile("no text: an empty message")
    if parts and all(part.get_content_maintype() == "image" for part in parts):
        raise UnreadableFile("no text: an e-mail of images alone")
    return Document(text + "\n", "markdown")


def _written(message: EmailMessage, depth: int) -> Iterator[str]:
    yield heading(_header(message, "Subject"), depth + 1)
    headers = ((name, _header(message, name)) for name in _HEADERS)
    yield "\n".join(f"{name}: {value}" for name, value in headers if value)
    attached: list[str] = []
    yield from _body(message, depth, attached)
    if attached:
        yield "Attachments:\n\n" + "\n".join(f"- {name}" for name in attached)


def _parsed(content: bytes) -> EmailMessage:
    return BytesParser(EmailMessage, policy=policy.default).parsebytes(content)


def _header(message: EmailMessage, name: str) -> str:
    """What is written in the headers of that name, decoded; as it stands where that cannot be done."""
    written = (one_line(str(value)) for key, value in message.raw_items() if key.lower() == name.lower())
    return one_line(", ".join(_decoded(value) for value in written))


def _decoded(header: str) -> str:
    if not header.isascii():
        header = _guessed(header.encode(errors="surrogateescape"))
    return (
        _ENCODED.sub(_decoded_words, header) if len(header) <= _LONGEST_HEADER else header[:_LONGEST_HEADER]
    )


def _decoded_words(words: re.Match[str]) -> str:
    try:
        parts = decode_header(words[0])
    except (errors.HeaderParseError, ValueError):
        return words[0]
    return "".join(part if isinstance(part, str) else _guessed(part, label) for part, label in parts)


def _guessed(content: bytes, label: str | None = None) -> str:
    """The text of a header: a message is not refused for one that is damaged."""
    try:
        return labelled(content, label)
    except UnreadableFile:
        return content.decode(errors="replace")


def _body(part: EmailMessage, depth: int, attached: list[str]) -> Iterator[str]:
    """The texts of a part and of all below it; the names of attachments are added to `attached`."""
    if depth > _MAX_DEPTH:
        raise UnreadableFile(f"its parts nest more than {_MAX_DEPTH} deep")
    kind = part.get_content_type()
    _check_open(part, kind)
    if kind == "message/rfc822":
        for inner in _enclosed(part):
            yield from _written(inner, depth + 1)
    elif kind == "message/delivery-status":
        yield plain("\n".join(f"{name}: {one_line(str(value))}" for name, value in _reported(part)))
    elif kind == "multipart/alternative":
        yield from _alternative(part, depth, attached)
    elif part.is_multipart():
        for inner in _parts(part):
            yield from _body(inner, depth + 1, attached)
    elif part.get_content_disposition() == "attachment" or part.get_content_maintype() != "text":
        attached.append(_named(part))
    elif kind not in _FOR_PROGRAMS:
        yield _text(part, kind)


def _check_open(part: EmailMessage, kind: str) -> None:
    if part.get_param("smime-type") == "signed-data":
        raise UnreadableFile("no text: the message is inside its signature (S/MIME), which is not read here")
    if kind in _ENCRYPTED:
        raise UnreadableFile(f"encrypted: a key is needed to read it ({kind})")


def _named(part: EmailMessage) -> str:
    return f"{one_line(part.get_filename() or 'without a name')} ({part.get_content_type()})"


def _alternative(part: EmailMessage, depth: int, attached: list[str]) -> Iterator[str]:
    """The first alternative, which is the plainest, that is not blank; of those after it the files."""
    chosen = False
    for inner in _parts(part):
        if chosen:
            attached.extend(_named(leaf) for leaf in inner.walk() if _is_attached(leaf))
        elif texts := [text for text in _body(inner, depth + 1, attached) if text]:
            chosen = True
            yield from texts


def _is_attached(part: EmailMessage) -> bool:
    """True for a file, and not for a picture that the text of its alternative shows."""
    if part.is_multipart() or part.get_content_disposition() == "attachment":
        return not part.is_multipart()
    return bool(part.get_filename()) and "Content-ID" not in part


def _parts(part: EmailMessage) -> list[EmailMessage]:
    return [inner for inner in part.iter_parts() if isinstance(inner, EmailMessage)]


def _enclosed(part: EmailMessage) -> list[EmailMessage]:
    """The message in a part, also where it is encoded, which it may not be and is (RFC 2046, 5.2.1)."""
    inner = _parts(part)
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding != "base64" or not inner or inner[0].keys():
        return inner
    try:
        return [_parsed(base64.b64decode(str(inner[0].get_payload())))]
    except binascii.Error:
        return inner


def _reported(part: EmailMessage) -> Iterator[tuple[str, object]]:
    """The fields of a report on what became of a message (RFC 3464)."""
    for block in part.get_payload():
        if isinstance(block, EmailMessage):
            yield from block.raw_items()


def _text(part: EmailMessage, kind: str) -> str:
    payload = part.get_payload(decode=True)
    text = labelled(payload if isinstance(payload, bytes) else b"", part.get_content_charset())
    if text.lstrip().startswith(_ARMOUR):
        raise UnreadableFile("encrypted: a key is needed to read it (PGP)")
    if kind == "text/html":
        return to_markdown(text)
    text = text.replace("\r\n", "\n")
    if str(part.get_param("delsp", "")).lower() == "yes":
        text = _FLOWS_ON.sub("", text)
    return plain(text).strip()
