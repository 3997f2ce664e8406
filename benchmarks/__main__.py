"""`python -m benchmarks [names] [--quick] [--json]`: runs them in turn, prints ratios beside targets.

`python -m benchmarks chunking [FOLDER]` and `python -m benchmarks embedding [FOLDER]` need no server, take
options of their own and print their own tables.
"""

import argparse
import importlib
import sys

import anyio
import msgspec
from rich.console import Console

from benchmarks import harness
from benchmarks.harness import Result

NAMES = (
    "append",
    "claim_complete",
    "job_queues",
    "store_vectors",
    "first_ingest",
    "reingest",
    "bulk_index",
    "switch",
    "search",
    "aging",
    "model_busy",
    "million",
)

LONG = ("scale",)
"""Run only where they are named: six gigabytes of disk, and six minutes or more."""

ALONE = ("chunking", "embedding")
"""Those that need no server: each reads the rest of the command line itself."""


async def run(names: list[str], *, quick: bool, dsn: str | None) -> list[Result]:
    """Every benchmark named, each on a server of its own."""
    results: list[Result] = []
    for name in names:
        Console(stderr=True).print(f"{name} …")
        async with harness.setup(quick=quick, dsn=dsn) as setup:
            results += await importlib.import_module(f"benchmarks.{name}").main(setup)
    return results


def main() -> None:
    """Parses the command line, runs, prints."""
    if sys.argv[1:2] and sys.argv[1] in ALONE:
        importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"of {', '.join(NAMES)}; all where none is given; or {', '.join(LONG)}",
    )
    parser.add_argument("--quick", action="store_true", help="smaller files and three rounds: does it run?")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--dsn", help="a Postgres with pgvector; else an embedded one in a temporary folder")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES + LONG):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES + LONG)}")
    results = anyio.run(lambda: run(given.names or list(NAMES), quick=given.quick, dsn=given.dsn))
    if given.json:
        sys.stdout.write(msgspec.json.encode(results).decode() + "\n")
    else:
        harness.show(results)


if __name__ == "__main__":
    main()
