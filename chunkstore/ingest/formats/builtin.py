"""The formats that are read here: each with the names that promise it, what reads it, and its licence."""

from collections.abc import Callable
from importlib import import_module

from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document, Kind
from chunkstore.ingest.formats.format import Format

_LANGUAGES = {
    "bash": ".bash .sh .zsh",
    "c": ".c .h",
    "c++": ".cc .cpp .cxx .hh .hpp",
    "c#": ".cs",
    "css": ".css .scss",
    "dockerfile": "dockerfile",
    "elixir": ".ex .exs",
    "erlang": ".erl",
    "go": ".go",
    "haskell": ".hs",
    "java": ".java",
    "javascript": ".cjs .js .jsx .mjs",
    "kotlin": ".kt",
    "lua": ".lua",
    "make": ".mk makefile",
    "ocaml": ".ml",
    "perl": ".pl .pm",
    "php": ".php",
    "python": ".py .pyi",
    "r": ".r",
    "ruby": ".rb",
    "rust": ".rs",
    "scala": ".scala",
    "sql": ".sql",
    "swift": ".swift",
    "toml": ".toml",
    "typescript": ".ts .tsx",
    "xml": ".xml .xsd .xsl .xslt .svg",
    "yaml": ".yaml .yml",
    "zig": ".zig",
}


def _as_is(kind: Kind, language: str | None = None) -> Callable[[bytes], Document]:
    return lambda content: Document(decoded(content), kind, language)


def _late(module: str, function: str = "read") -> Callable[[bytes], Document]:
    """A reader whose module is imported when the first file comes."""

    def read(content: bytes) -> Document:
        reader: Callable[[bytes], Document] = getattr(
            import_module(f"chunkstore.ingest.formats.{module}"), function
        )
        return reader(content)

    return read


PLAIN_TEXT = Format(
    name="text",
    title="plain text",
    read=_as_is("text"),
    names=(".txt", ".text", ".rst", ".adoc", ".log", ".org", ".tex", "readme", "license", "copying"),
    library="chardet",
    licence="0BSD",
    is_text=True,
)

BUILTIN: tuple[Format, ...] = (
    PLAIN_TEXT,
    Format(
        name="markdown",
        title="Markdown",
        read=_as_is("markdown"),
        names=(".md", ".markdown", ".mdown"),
        library="chardet",
        licence="0BSD",
        is_text=True,
    ),
    *(
        Format(
            name="code",
            version=2,
            title="source code",
            read=_as_is("code", language),
            names=tuple(names.split()),
            library="chardet",
            licence="0BSD",
            is_text=True,
        )
        for language, names in _LANGUAGES.items()
    ),
    Format(
        name="html",
        version=2,
        title="HTML",
        read=_late("html"),
        names=(".html", ".htm", ".xhtml"),
        library="html-to-markdown",
        licence="MIT",
        extra="formats",
        is_text=True,
    ),
    Format(
        name="pdf",
        title="PDF",
        read=_late("pdf"),
        names=(".pdf",),
        library="pypdfium2 (PDFium)",
        licence="Apache-2.0 or BSD-3-Clause (PDFium: BSD-3-Clause)",
        extra="formats",
    ),
    Format(
        name="docx",
        version=2,
        title="Word document",
        read=_late("docx"),
        names=(".docx", ".docm", ".dotx"),
        library="mammoth, html-to-markdown",
        licence="BSD-2-Clause, MIT",
        extra="formats",
    ),
    Format(
        name="pptx",
        version=2,
        title="PowerPoint presentation",
        read=_late("pptx"),
        names=(".pptx", ".pptm", ".ppsx"),
        library="python-pptx",
        licence="MIT",
        extra="formats",
    ),
    Format(
        name="xlsx",
        version=2,
        title="Excel workbook",
        read=_late("xlsx"),
        names=(".xlsx", ".xlsm"),
        library="openpyxl",
        licence="MIT",
        extra="formats",
    ),
    Format(
        name="epub",
        version=2,
        title="EPUB book",
        read=_late("epub"),
        names=(".epub",),
        library="html-to-markdown",
        licence="MIT",
        extra="formats",
    ),
    Format(
        name="csv",
        version=2,
        title="CSV, TSV",
        read=_late("delimited"),
        names=(".csv", ".tsv"),
        library="Python's csv",
        licence="PSF-2.0",
        is_text=True,
    ),
    Format(
        name="json",
        title="JSON",
        read=_late("json_text"),
        names=(".json", ".geojson", ".webmanifest"),
        library="Python's json, msgspec",
        licence="PSF-2.0, BSD-3-Clause",
        is_text=True,
    ),
    Format(
        name="jsonl",
        title="JSON Lines",
        read=_late("json_text", "read_lines"),
        names=(".jsonl", ".ndjson"),
        library="Python's json",
        licence="PSF-2.0",
        is_text=True,
    ),
    Format(
        name="notebook",
        title="Jupyter notebook",
        read=_late("notebook"),
        names=(".ipynb",),
        library="Python's json, msgspec",
        licence="PSF-2.0, BSD-3-Clause",
        is_text=True,
    ),
    Format(
        name="mail",
        version=2,
        title="e-mail",
        read=_late("mail"),
        names=(".eml", ".mht", ".mhtml"),
        library="Python's email, html-to-markdown for HTML",
        licence="PSF-2.0, MIT",
        is_text=True,
    ),
)
