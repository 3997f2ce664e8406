"""What scenarios are built of: tables to begin with, and processes."""

from typing import Any

from tests.model.protocol import collector, consumer, eraser, projector
from tests.model.protocol.clock import time_passes
from tests.model.protocol.explorer import Explorer
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import TABLES, Checkpoint, Model, Tables
from tests.model.protocol.states import Call, Check, Process, Scenario, call

# --- tables to begin with -------------------------------------------------------------------------


def empty(*, models: str = "m", groups: str = "m", partitions: int = 1) -> Tables:
    """A store without files: its models, and the groups that follow its log."""
    tables: Tables = {table: {} for table in TABLES}
    tables["partitions"] = dict.fromkeys(range(partitions), True)
    tables["models"] = {model: Model() for model in models}
    places = [(model, partition) for model in groups for partition in range(partitions)]
    tables["progress"] = dict.fromkeys(places, True)
    tables["checkpoints"] = {place: Checkpoint() for place in places}
    tables["time"] = {"now": 0}
    return tables


def lived(*calls: Call, before: Tables | None = None, served: bool = True) -> Tables:
    """A store after some calls, one after the other, each with all that consumers and projector do then."""
    tables = before or empty()
    helpers = (*consumers(1), *projectors()) if served else ()
    for one in calls:
        scenario = Scenario("before", tables, (Process("writer", (one,)), *helpers))
        nothing = Check(lambda _: None, lambda _: None)
        tables = Explorer(scenario, Rules(keep_last=9), nothing, time_passes).walk()
    return tables


# --- processes ------------------------------------------------------------------------------------


def writers(*scripts: Call | tuple[Call, ...], **options: Any) -> tuple[Process, ...]:
    """Writers, each with its calls."""
    return tuple(
        Process(f"writer {number}", (script,) if isinstance(script, Call) else script, **options)
        for number, script in enumerate(scripts, 1)
    )


def consumers(count: int = 1, model: str = "m", **options: Any) -> tuple[Process, ...]:
    """Consumers of a model."""
    names = [f"consumer {number}" for number in range(1, count + 1)]
    return tuple(
        Process(name, (call(consumer.consume, name, model),), repeats=True, **options) for name in names
    )


def projectors(count: int = 1, model: str = "m", **options: Any) -> tuple[Process, ...]:
    """Projectors of a model."""
    names = [f"projector {number}" for number in range(1, count + 1)]
    return tuple(
        Process(name, (call(projector.project, name, model),), repeats=True, **options) for name in names
    )


def collectors(**options: Any) -> tuple[Process, ...]:
    """The collector."""
    return (Process("collector", (call(collector.collect),), repeats=True, **options),)


def one(name: str, script: Call, **options: Any) -> tuple[Process, ...]:
    """A process that makes one call."""
    return (Process(name, (script,), **options),)


def erasers(key: str) -> tuple[Process, ...]:
    """An erasure."""
    return one("eraser", call(eraser.erase, key))
