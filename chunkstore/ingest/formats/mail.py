"""E-mail as Markdown: the subject as heading, who wrote to whom and when, the body, the names of attachments.

Read by the standard library. Of a body that is sent twice the plain text is taken, unless it is blank.
Attachments are named and not opened; messages inside the message are read.
"""

from collections.abc import Iterator
from email import errors, policy
from email.message import EmailMessage
from email.parser import BytesParser

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
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

_HEADERS = ("From", "To", "Cc", "Date")
_MAX_DEPTH = 20
_LONGEST_HEADER = 10_000
"""Characters of a header that are decoded: the time for that grows with the square of its length."""


def read(content: bytes) -> Document:
    """The message. Raises UnreadableFile for what has no header of an e-mail, or no text at all."""
    message = BytesParser(EmailMessage, policy=policy.default).parsebytes(content)
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


def _header(message: EmailMessage, name: str) -> str:
    """The decoded header; as it stands where it is very long or the standard library cannot decode it."""
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    try:
        value = str(message.get(name, "")) if len(raw) <= _LONGEST_HEADER else raw[:_LONGEST_HEADER]
    except Exception:  # noqa: BLE001 - its parsers raise what they like for broken headers
        value = raw
    return one_line(value.encode(errors="replace").decode())


def _body(part: EmailMessage, depth: int, attached: list[str]) -> Iterator[str]:
    """The texts of a part and of all below it; the names of attachments are added to `attached`."""
    if depth > _MAX_DEPTH:
        raise UnreadableFile(f"its parts nest more than {_MAX_DEPTH} deep")
    kind = part.get_content_type()
    if part.get_param("smime-type") == "signed-data":
        raise UnreadableFile("no text: the message is inside its signature (S/MIME), which is not read here")
    if kind in _ENCRYPTED:
        raise UnreadableFile(f"encrypted: a key is needed to read it ({kind})")
    if kind == "message/rfc822":
        for inner in _parts(part):
            yield from _written(inner, depth + 1)
    elif kind == "multipart/alternative":
        yield from _alternative(part, depth, attached)
    elif part.is_multipart():
        for inner in _parts(part):
            yield from _body(inner, depth + 1, attached)
    elif part.get_content_disposition() == "attachment" or part.get_content_maintype() != "text":
        attached.append(f"{one_line(part.get_filename() or 'without a name')} ({kind})")
    else:
        yield _text(part, kind)


def _alternative(part: EmailMessage, depth: int, attached: list[str]) -> Iterator[str]:
    """The first of the alternatives, which is the plainest, that is not blank."""
    for inner in _parts(part):
        texts = [text for text in _body(inner, depth + 1, attached) if text]
        if texts:
            yield from texts
            return


def _parts(part: EmailMessage) -> list[EmailMessage]:
    return [inner for inner in part.iter_parts() if isinstance(inner, EmailMessage)]


def _text(part: EmailMessage, kind: str) -> str:
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    try:
        text = content.decode(part.get_content_charset() or "utf-8")
    except (UnicodeDecodeError, LookupError):
        text = decoded(content)
    if text.lstrip().startswith(_ARMOUR):
        raise UnreadableFile("encrypted: a key is needed to read it (PGP)")
    return to_markdown(text) if kind == "text/html" else plain(text.replace("\r\n", "\n")).strip()
