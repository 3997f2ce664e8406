"""Runs the races and prints the table."""

import argparse
import asyncio
from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from examples.reupload_race.ledger import InVain
from examples.reupload_race.race import UPLOADERS, WORKERS, Outcome, race_all
from examples.reupload_race.uploads import KEYS

ROWS: dict[str, Callable[[Outcome], str]] = {
    "uploads": lambda o: f"{o.uploads:,}",
    "uploads seen whole": lambda o: f"{o.seen:,}",
    "foreign-key violations": lambda o: f"{o.violations:,}",
    "half-indexed reads": lambda o: f"{o.half:,} of {o.reads:,}",
    "texts to the model": lambda o: f"{o.waste.given:,}",
    "in vain, known at read": lambda o: f"{o.waste.not_read.texts:,}",
    "in vain, read ahead": lambda o: _in_flight(o.waste.waiting, o.batch),
    "in vain, in the model": lambda o: _in_flight(o.waste.in_model, o.batch),
}

MEANING = """\
In vain: a later upload of the file was committed before the text's vector was there. Known at read: the
text was read after that commit, and could have been left out. The others were in flight: in a batch that was
read and waited for the model, or in the model; in brackets the most of one upload and worker, of a batch."""


def _in_flight(counted: InVain, batch: int) -> str:
    return f"{counted.texts:,} ({counted.most} of {batch})"


def table(outcomes: dict[str, Outcome]) -> Table:
    """The counts side by side."""
    title = f"{UPLOADERS} uploaders, {WORKERS} workers, the same {len(KEYS)} files"
    shown = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column(no_wrap=True)
    for name in outcomes:
        shown.add_column(name, justify="right")
    for name, cell in ROWS.items():
        shown.add_row(name, *map(cell, outcomes.values()))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Races the usual pipeline and chunkstore.")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each pipeline is raced")
    outcomes = asyncio.run(race_all(parser.parse_args().seconds))
    console = Console()
    console.print(table(outcomes))
    console.print(MEANING, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
