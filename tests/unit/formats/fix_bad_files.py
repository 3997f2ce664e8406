"""Makes bad files: good ones cut short or changed, archives that lie, and what nobody should have written."""

import json
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO

from tests.unit.formats.fix_files import FILES

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "&lol;" * 10}">' for n in range(10))
    + "]><lolz>&l9;</lolz>"
)
FETCH = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
DEEP = "<a>" * 100_000 + "</a>" * 100_000


def made(name: str) -> bytes:
    """A file that some program made, whole."""
    return (FILES / name).read_bytes()


def made_part(name: str, member: str) -> str:
    """The text of one member of an archive that some program made."""
    with zipfile.ZipFile(FILES / name) as archive:
        return archive.read(member).decode()


def cut(name: str, part: float) -> bytes:
    """The beginning of such a file."""
    content = made(name)
    return content[: int(len(content) * part)]


def zipped(members: Mapping[str, bytes | str]) -> bytes:
    """A ZIP archive of these members."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writing:
        for name, content in members.items():
            writing.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def changed(name: str, replaced: Mapping[str, bytes | str | None]) -> bytes:
    """An archive that some program made, with these members replaced, added, or (None) left out."""
    with zipfile.ZipFile(FILES / name) as archive:
        members: dict[str, bytes | str | None] = {each: archive.read(each) for each in archive.namelist()}
    members.update(replaced)
    return zipped({each: content for each, content in members.items() if content is not None})


def edited(name: str, member: str, edit: Callable[[str], str]) -> bytes:
    """An archive that some program made, with the text of one member edited."""
    return changed(name, {member: edit(made_part(name, member))})


def flagged(name: str) -> bytes:
    """An archive whose every member claims to be encrypted."""
    content = bytearray(made(name))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = content.find(signature)
        while position >= 0:
            content[position + offset] |= 1
            position = content.find(signature, position + 4)
    return bytes(content)


def flipped(name: str, member: str) -> bytes:
    """An archive with one byte of the packed content of a member turned over."""
    content = bytearray(made(name))
    with zipfile.ZipFile(FILES / name) as archive:
        found = archive.getinfo(member)
    content[found.header_offset + 30 + len(member) + found.compress_size // 2] ^= 0xFF
    return bytes(content)


def book(spine: str, pages: Mapping[str, str], manifest: str = "", **more: str) -> bytes:
    """An EPUB with this spine and these pages, each in the manifest under its name."""
    items = manifest or "".join(
        f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in pages
    )
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfile full-path="o.opf"/></container>',
            "o.opf": f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>",
            **pages,
            **{name.replace("__", "/").replace("_", "."): text for name, text in more.items()},
        }
    )


def notebook(cells: object, **more: object) -> bytes:
    """A notebook with these cells, whatever they are."""
    return json.dumps({"nbformat": 4, "cells": cells, **more}).encode()


def mail(*lines: str) -> bytes:
    """An e-mail with these lines after its first headers."""
    return "\n".join(["Subject: hi", "From: a@example.org", "MIME-Version: 1.0", *lines]).encode()


def nested_mail(depth: int) -> bytes:
    """An e-mail whose parts lie that deep in each other."""
    lines = [f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}" for n in range(depth)]
    return mail(*lines, "Content-Type: text/plain", "", "words")
