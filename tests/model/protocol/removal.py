"""Scenarios of erase, the collector, added models and rebuilds; and the large ones."""

from tests.model.protocol import administrator, holder, rebuilder
from tests.model.protocol.building import (
    collectors,
    consumers,
    empty,
    erasers,
    lived,
    one,
    projectors,
    writers,
)
from tests.model.protocol.rules import Rules
from tests.model.protocol.states import Scenario, call
from tests.model.protocol.streams import stream
from tests.model.protocol.targets import pin, roll_back
from tests.model.protocol.writer import append


def of_removal() -> list[Scenario]:
    ab = call(append, "A", "ab")
    return [
        Scenario(
            "erase against a consumer, a projector and a writer",
            lived(ab, served=False),
            (*erasers("A"), *consumers(), *projectors(), *writers(call(append, "A", "c"))),
        ),
        Scenario(
            "erase against a stream",
            lived(ab, served=False),
            (*erasers("A"), *writers(call(stream, "A", ("a", "c")))),
            served=frozenset(),
        ),
        Scenario(
            "erase against a bad chunk",
            lived(call(append, "A", "X"), served=False),
            (*erasers("A"), *consumers()),
            rules=Rules(attempts=1),
        ),
        Scenario(
            "erase against a consumer of two chunks",
            lived(ab, served=False),
            (*erasers("A"), *consumers()),
        ),
        Scenario(
            "roll back and pin against the collector",
            lived(ab, call(append, "A", "b|c"), call(append, "A", "d")),
            (
                *writers(call(roll_back, "A", 1), call(pin, "A", 2)),
                *consumers(),
                *projectors(),
                *collectors(),
            ),
            collects=True,
        ),
        Scenario(
            "a pinned version shares a chunk with what is collected",
            lived(ab, call(pin, "A", 1), call(append, "A", "ac")),
            (*writers(call(append, "A", "d")), *consumers(), *projectors(), *collectors()),
            collects=True,
        ),
        Scenario(
            "a pinned version shares a segment with what is collected",
            lived(call(append, "A", "a|b"), call(pin, "A", 1), call(append, "A", "a|c")),
            (*writers(call(append, "A", "d")), *consumers(), *projectors(), *collectors()),
            collects=True,
        ),
        Scenario(
            "an append against the collector",
            lived(ab),
            (*writers(call(append, "A", "b|c")), *consumers(), *projectors(), *collectors(crashes=True)),
            crashes=1,
            collects=True,
        ),
        Scenario(
            "a chunk comes back against the collector",
            lived(ab, call(append, "A", "c"), served=False),
            (*writers(call(append, "A", "a")), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a late consumer against the collector",
            lived(call(append, "A", "a"), served=False),
            (*writers(call(append, "A", "b")), *consumers(), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a caller who holds a chunk, a writer, the collector",
            lived(ab, call(append, "A", "c"), served=False),
            (*one("caller", call(holder.hold, "b.A1.1")), *writers(call(append, "A", "ab")), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a caller who holds a chunk, the collector",
            lived(ab, call(append, "A", "c"), served=False),
            (*one("caller", call(holder.hold, "b.A1.1")), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "two versions are kept, a pin",
            lived(ab, call(append, "A", "bc"), call(append, "A", "cd"), served=False),
            (*writers(call(append, "A", "de"), call(pin, "A", 1)), *collectors()),
            served=frozenset(),
            collects=True,
            rules=Rules(keep_last=2),
        ),
    ]


def of_everything() -> list[Scenario]:
    """All kinds of processes at once, with a crash and an early expiry."""
    a = call(append, "A", "a")
    return [
        Scenario(
            "two writers, two consumers, a projector, the collector, a crash, a lease that runs out",
            lived(a),
            (
                *writers(call(append, "A", "b"), call(roll_back, "A", 1)),
                *consumers(2, crashes=True),
                *projectors(),
                *collectors(),
            ),
            crashes=1,
            expiries=1,
            collects=True,
            rules=Rules(attempts=4),
        ),
    ]


def of_models_and_rebuilds() -> list[Scenario]:
    a, b = call(append, "A", "a"), call(append, "A", "b")
    rebuild = one("rebuilder", call(rebuilder.rebuild, "m"))
    without_models = empty(models="")
    return [
        Scenario(
            "a model is added against a writer",
            lived(a, before=without_models),
            (
                *one("administrator", call(administrator.add_model, "m")),
                *writers(call(append, "A", "a|b")),
                *consumers(),
                *projectors(),
            ),
        ),
        Scenario(
            "a model is added against a writer in another partition",
            lived(call(append, "B", "a"), before=empty(models="", partitions=2)),
            (
                *one("administrator", call(administrator.add_model, "m")),
                *writers(call(append, "B", "a|a")),
                *consumers(),
                *projectors(),
            ),
        ),
        Scenario(
            "a model is added against a roll back, and whoever adds it dies",
            lived(a, b, before=without_models),
            (
                *one("administrator", call(administrator.begin_to_add, "m")),
                *writers(call(roll_back, "A", 1)),
                *consumers(),
                *projectors(),
            ),
        ),
        Scenario(
            "a model is added to a file without chunks",
            lived(a, call(append, "A", ""), before=without_models),
            (*one("administrator", call(administrator.add_model, "m")), *consumers(), *projectors()),
        ),
        Scenario(
            "two models are added, two partitions, two writers",
            empty(models="", partitions=2),
            (
                *one("administrator 1", call(administrator.begin_to_add, "m", 0)),
                *one("administrator 2", call(administrator.begin_to_add, "n", 1)),
                *writers(a, call(append, "B", "a")),
            ),
            served=frozenset(),
        ),
        Scenario(
            "a rebuild against a switch",
            lived(a),
            (*rebuild, *writers(b), *consumers(), *projectors()),
        ),
        Scenario("a rebuild against an erasure", lived(call(append, "A", "ab")), (*rebuild, *erasers("A"))),
        Scenario(
            "a rebuild against the collector, and a pinned version shares a chunk",
            lived(
                call(append, "A", "d"),
                before=lived(
                    call(append, "A", "ab"), call(pin, "A", 1), call(append, "A", "ac"), served=False
                ),
            ),
            (*rebuild, *collectors()),
            collects=True,
        ),
        Scenario(
            "a rebuild against the collector",
            lived(a, b),
            (*rebuild, *collectors()),
            collects=True,
        ),
    ]


def at_large() -> list[Scenario]:
    """More processes at once: for `make model`, which has the time."""
    a = call(append, "A", "a")
    return [
        Scenario(
            "two writers of two versions each, two consumers, a projector, the collector, a crash",
            lived(a),
            (
                *writers(call(append, "A", "b"), (call(roll_back, "A", 1), call(append, "A", "a"))),
                *consumers(2, crashes=True),
                *projectors(),
                *collectors(),
            ),
            crashes=1,
            collects=True,
            rules=Rules(attempts=4),
        ),
        Scenario(
            "a stream, an erasure, a consumer, a projector, the collector, a deadline",
            lived(a),
            (
                *writers(call(stream, "A", ("b",))),
                *erasers("A"),
                *consumers(),
                *projectors(),
                *collectors(),
            ),
            expiries=1,
            collects=True,
        ),
        Scenario(
            "a rebuild, an erasure, a writer, a consumer, a projector",
            lived(a, call(append, "B", "b")),
            (
                *one("rebuilder", call(rebuilder.rebuild, "m")),
                *erasers("A"),
                *writers(call(append, "B", "c")),
                *consumers(),
                *projectors(),
            ),
        ),
    ]
