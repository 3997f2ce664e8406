"""The application: its help, and the groups that its commands stand in."""

from functools import partial
from importlib import import_module

from cyclopts import App, Group

from chunkstore import __version__
from chunkstore.cli.codes import MEANINGS

SET_UP = Group("Set up", sort_key=1)
FILES = Group("Files", sort_key=2)
SEARCH = Group("Search and look", sort_key=3)
WORK = Group("Work", sort_key=4)
CHECK = Group("Check and repair", sort_key=5)

app = App(
    name="chunkstore",
    help="""A versioned store of document chunks and their embeddings, on Postgres.

For example, on a machine with nothing installed:
  chunkstore migrate
  chunkstore ingest docs/ --wait
  chunkstore search "how do leases expire?\"""",
    help_format="plaintext",
    help_epilogue=f"""Every command but models takes --dsn, --schema and --data, and reads
CHUNKSTORE_DSN, CHUNKSTORE_SCHEMA and CHUNKSTORE_DATA where they are not given.
Without a DSN the store is in an embedded Postgres in the data folder.

Data goes to standard output (with --json: as JSON), all else to standard error.

{MEANINGS}""",
    version=__version__,
)
collections = App(
    name="collection",
    sort_key=2,
    help="""Create and list collections.

For example:
  chunkstore collection create notes --model minilm
  chunkstore collection list""",
    group=SET_UP,
    help_format="plaintext",
    help_epilogue="",
)

dead_letters = App(
    name="dead-letters",
    sort_key=3,
    help="""List, show, retry and discard the chunks that consumers gave up on.

For example:
  chunkstore dead-letters list
  chunkstore dead-letters show 4711
  chunkstore dead-letters retry 4711""",
    group=CHECK,
    help_format="plaintext",
    help_epilogue="",
)

command = partial(app.command, help_format="markdown", help_epilogue="")
collection_command = partial(collections.command, help_format="markdown", help_epilogue="")
dead_letters_command = partial(dead_letters.command, help_format="markdown", help_epilogue="")


def load() -> App:
    """The application with every command registered."""
    for name in (
        "setup",
        "listing",
        "ingest",
        "versions",
        "reading",
        "history",
        "work",
        "up",
        "checks",
        "rights",
        "dead_letters",
    ):
        import_module(f"chunkstore.cli.{name}")
    return app


app.command(collections)
app.command(dead_letters)
