"""The error for a format whose library is not there; libraries are imported when the first file comes."""

from chunkstore.errors import FormatNotInstalled


def not_installed(what: str, library: str) -> FormatNotInstalled:
    """The error to raise where `library`, which reads `what`, cannot be imported."""
    return FormatNotInstalled(f"{what}: {library} is not installed: pip install 'chunkstore[formats]'")
