"""Embeds and projects with a progress bar: what `consume`, `project`, `up` and `ingest --wait` share."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import anyio

from chunkstore.cli.output import clean, say
from chunkstore.errors import ModelUnavailable

if TYPE_CHECKING:
    from rich.progress import Progress

    from chunkstore.models import Model, Spent
    from chunkstore.store import ChunkStore
    from consumers.embedding import ConsumeReport
    from projections.projector import ProjectReport

T = TypeVar("T")
R = TypeVar("R")


async def lag(store: "ChunkStore", model: str) -> int:
    """How many chunks the log asks the model for, those that no version needs any more included."""
    from chunkstore.status import shared_groups

    return sum(group.lag for group in await shared_groups(store) if group.model == model)


async def embed(
    store: "ChunkStore",
    model: "Model",
    bar: "Progress",
    *,
    drain: bool = True,
    batch: int | None = None,
    stop: anyio.Event | None = None,
) -> "ConsumeReport":
    """Runs one consumer for the model, with a row of the progress bar."""
    from consumers.embedding import ConsumeReport, EmbeddingConsumer

    title = f"embedding with {clean(model.name)}"
    row = bar.add_task(title, total=None)

    def show(report: ConsumeReport) -> None:
        nonlocal told, truncated
        told = False
        if report.truncated and not truncated:
            say(f"{model.name} does not read to the end of every chunk: some are longer than its limit")
        truncated = report.truncated
        total = max(waiting, report.stored) if drain else None
        bar.update(
            row, completed=report.stored, total=total, description=f"{title}: {report.stored:,} chunks"
        )

    def tell(error: ModelUnavailable) -> None:
        nonlocal told
        if not told:
            say(f"{model.name} is not there, and is asked again until it is: {error}")
        told = True

    told, truncated = False, 0
    consumer = EmbeddingConsumer(store, model, batch=batch, on_progress=show, on_outage=tell)
    waiting = await lag(store, model.name)
    show(consumer.report)
    try:
        return await consumer.run(drain=drain, stop=stop)
    finally:  # also where the provider refused: what was asked of it until then is paid for
        if consumer.report.spent is not None:
            _say_spent(model.name, consumer.report.spent)
        if consumer.report.truncated:
            _say_truncated(model, consumer.report)


def _say_truncated(model: "Model", report: "ConsumeReport") -> None:
    from chunkstore.models import CountsTokens

    assert isinstance(model, CountsTokens), "only such a model says what it cuts"
    say(
        f"{model.name} read only the first {model.max_tokens:,} tokens of {report.truncated:,} of"
        f" {report.embedded:,} chunks: cut them smaller to have all of their text found"
    )


def _say_spent(model: str, spent: "Spent") -> None:
    cost = "" if spent.cost is None else f", at a cost of {spent.cost:,.6g}"
    say(f"{model}: {spent.requests:,} requests, {spent.tokens:,} tokens{cost}")


async def project(
    store: "ChunkStore", model: str, bar: "Progress", *, drain: bool = True, stop: anyio.Event | None = None
) -> "ProjectReport":
    """Runs one projector for the model, with a row of the progress bar."""
    from projections.projector import Projector, ProjectReport

    title = f"activating for {clean(model)}"
    row = bar.add_task(title, total=None)

    def show(report: ProjectReport) -> None:
        bar.update(
            row, completed=report.activated, description=f"{title}: {report.activated:,} files switched"
        )

    return await Projector(store, model, on_progress=show).run(drain=drain, stop=stop)


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """What `work` returns for each item, all at once, in the order of the items."""
    results: dict[int, R] = {}

    async def one(position: int, item: T) -> None:
        results[position] = await work(item)

    async with anyio.create_task_group() as tasks:
        for position, item in enumerate(items):
            tasks.start_soon(one, position, item)
    return [results[position] for position in sorted(results)]
