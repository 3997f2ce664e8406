# ruff: noqa: E501 - tables
"""What happens when a rule, or a part of it, is left out: where that shows, and what it breaks."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One part of a rule left out."""

    name: str
    """What the programs ask `Rules.keep` for; it begins with the rule."""
    instead: str
    """What the programs do then."""
    scenario: str
    breaks: str

    @property
    def rule(self) -> str:
        """The rule's number, or `order` for the order of locks."""
        return self.name.split(" ", 1)[0]


class Spare(NamedTuple):
    """One part of a rule whose removal breaks no invariant, and why."""

    name: str
    instead: str
    scenario: str
    why: str


STREAM = "a stream, a writer, a collector, a deadline"
TRIED_AGAIN = "a stream that is tried again"
CONSUMERS = "two consumers, a lease that runs out, a crash"
TWICE = "a chunk that is logged twice, two consumers"
FAILS = "a chunk that is logged twice, and the model fails now and then"
ERASE = "erase against a consumer, a projector and a writer"
LATE = "a late consumer against the collector"
COLLECT = "an append against the collector"
KEPT = "roll back and pin against the collector"
UNCHANGED = "an append that changes nothing, after a chunk was given up"
PROJECTORS = "two projectors, a checkpoint that runs out"

MUTANTS = (
    Mutant("1 head", "the statement that locks the partition reads the head", "two writers of two files in one partition", "invariant 12"),
    Mutant("1 state", "a writer reads its file's state before the lock", "two writers that expect what they read", "expected version"),
    Mutant("2", "a file is inserted and selected in one statement", "two writers of one file, a consumer, a projector", "nothing raised"),
    Mutant("3 erase", "erase deletes in one statement", ERASE, "invariant 4"),
    Mutant("3 sweep", "a sweep deletes in one statement", LATE, "invariant 4"),
    Mutant("4", "a deadline runs from when the transaction began", STREAM, "deadline"),
    Mutant("order of chunks", "a consumer locks its chunks backwards", "erase against a consumer of two chunks", "deadlock"),
    Mutant("order of the partition", "a consumer locks the partition first", ERASE, "deadlock"),
    Mutant("order of partitions", "each who adds a model locks partitions in an order of its own", "two models are added, two partitions, two writers", "deadlock"),
    Mutant("order of a sweep", "a sweep removes superseded search rows before it holds the models", "a rebuild against the collector, and a pinned version shares a chunk", "deadlock"),
    Mutant("5 open", "nobody asks whether the version is still open", STREAM, "invariant 3"),
    Mutant("5 lock", "that is asked before the file's lock", STREAM, "invariant 3"),
    Mutant("6 counter", "a version's number is the latest plus one", STREAM, "invariant 12"),
    Mutant("6 key looked up again", "a file is locked by the number that its key had", ERASE, "invariant 11"),
    Mutant("6 key set to null", "an erased file keeps its key", ERASE, "invariant 11"),
    Mutant("7 expected at the commit", "the expected version is checked at the opening alone", "a stream that expects a version, a writer", "expected version"),
    Mutant("7 key checked at the commit", "the idempotency key is checked at the opening alone", TRIED_AGAIN, "invariant 12"),
    Mutant("7 key recorded at the commit", "the idempotency key is recorded at the opening", TRIED_AGAIN, "answer"),
    Mutant("8 reused", "an append does not look up what it reuses", "a version comes back before anything is embedded", "invariant 5"),
    Mutant("8 rollback", "a rollback looks nothing up", "a roll back before anything is embedded", "invariant 5"),
    Mutant("8 the latest is the target", "an append is unchanged although a rollback holds", "an append after a roll back", "answer"),
    Mutant("9", "the models are not read again under the partition's lock", "a model is added against a roll back, and whoever adds it dies", "invariant 5"),
    Mutant("10 skip", "every chunk of a range is given to the model", "two writers of one file, a consumer, a projector", "cost"),
    Mutant("10 open", "chunks of open versions are skipped", "a stream whose batches are consumed", "invariant 5"),
    Mutant("10 active", "chunks that were taken back into the active version are skipped", "a chunk that is taken back into what is active, a roll back", "invariant 5"),
    Mutant("11 epoch", "a range is taken over under its epoch", CONSUMERS, "invariant 8"),
    Mutant("11 halves", "halves get the parent's epoch", CONSUMERS, "invariant 8"),
    Mutant("11 expiry counts", "an expiry is no attempt", "a chunk that kills its consumer", "for ever"),
    Mutant("11 halve a failed range", "attempts of a range of several chunks count", "a bad chunk", "invariant 5"),
    Mutant("11 halve an expired range", "a range of several chunks is never halved for expiries", "a chunk that kills its consumer", "for ever"),
    Mutant("11 looked at again", "a range is taken over as it was before the lock", CONSUMERS, "invariant 8"),
    Mutant("12", "a vector is copied from its source at the write", "a copy whose source is erased", "invariant 5"),
    Mutant("13 conflict", "a second embedding is inserted", TWICE, "invariant 12"),
    Mutant("13 lists what is new", "an event lists what was given", TWICE, "embedded once"),
    Mutant("13 with its event", "an embedding is committed before its event", "a consumer that is killed", "invariant 13"),
    Mutant("13 dead letter", "an embedding leaves its dead letter", FAILS, "invariant 4"),
    Mutant("13 fresh look", "a consumer looks for an embedding before it has the chunk's lock", FAILS, "invariant 4"),
    Mutant("14", "the error's text is in the log", "erase against a bad chunk", "invariant 11"),
    Mutant("15 lock", "a switch does not lock the file", ERASE, "invariant 11"),
    Mutant("15 afresh", "the target is read before the file's lock", PROJECTORS, "invariant 7"),
    Mutant("15 not what the event names", "a switch goes to the version that the event names", PROJECTORS, "invariant 7"),
    Mutant("15 complete", "a switch does not ask what is embedded", CONSUMERS, "invariant 6"),
    Mutant("16 cursor", "the cursor stays where the target changed", "a rebuild against a switch", "invariant 6"),
    Mutant("16 carried", "what is carried from any version is taken for complete", "an append takes on what a roll back superseded", "invariant 5"),
    Mutant("16 from state", "embedded events are counted", "two writers of one file, a consumer, a projector", "invariant 6"),
    Mutant("16 chunks_embedded", "embedded events are no reason to look", CONSUMERS, "invariant 13"),
    Mutant("16 version_committed", "commits are no reason to look", "a file is deleted while it is embedded", "invariant 13"),
    Mutant("16 target_changed", "rollbacks are no reason to look", KEPT, "invariant 13"),
    Mutant("16 file_backfilled", "a back-fill is no reason to look", "a model is added to a file without chunks", "invariant 13"),
    Mutant("16 discarded", "a discarded dead letter is not done", "a bad chunk", "invariant 13"),
    Mutant("16 dead_letter_discarded", "a discarded dead letter is no reason to look", "a bad chunk", "invariant 13"),
    Mutant("16 reset", "the cursor stays behind a chunk that is taken back", "a bad chunk that is discarded and taken back", "invariant 6"),
    Mutant("17", "a switch inserts no search rows", KEPT, "invariant 6"),
    Mutant("18 lock", "superseded search rows are removed without the file's lock", PROJECTORS, "invariant 6"),
    Mutant("18 active stays", "search rows of what is active are removed", PROJECTORS, "invariant 6"),
    Mutant("18 version_activated", "a switch removes nothing", "a rebuild against a switch", "invariant 9"),
    Mutant("18 chunks_embedded", "a late embedding removes nothing", "a file is deleted while it is embedded", "invariant 9"),
    Mutant("18 target_changed", "a rollback removes nothing", "a roll back from a version that is never complete", "invariant 9"),
    Mutant("18 version_committed", "a version that is superseded at birth removes nothing", "a stream that is committed after a later version", "invariant 9"),
    Mutant("18 version_abandoned", "a version that is given up removes nothing", "a stream that is given up after a later version", "invariant 9"),
    Mutant("18 rollback replaced", "a commit does not say which rollback it replaces", "an append replaces a roll back that is half embedded", "invariant 9"),
    Mutant("18 swept chunk", "a sweep leaves the search rows of what its segments share", "a pinned version shares a chunk with what is collected", "invariant 9"),
    Mutant("18 swept segment", "a sweep leaves the search rows of segments that are listed elsewhere", "a pinned version shares a segment with what is collected", "invariant 9"),
    Mutant("19 read again", "a sweep takes over what it read before the file's lock", "a chunk comes back against the collector", "invariant 3"),
    Mutant("19 reachable", "a sweep does not ask what is still reachable", COLLECT, "invariant 3"),
    Mutant("19 asked under the lock", "a decision takes over what it read before the file's lock", KEPT, "invariant 9"),
    Mutant("19 decided first", "a sweep without a decision in the log", KEPT, "invariant 3"),
    Mutant("19 active", "active versions are decided on", COLLECT, "invariant 9"),
    Mutant("19 target", "targets are decided on", KEPT, "invariant 9"),
    Mutant("19 pinned", "pinned versions are decided on", KEPT, "invariant 9"),
    Mutant("20 key share", "a consumer does not hold its chunks", ERASE, "invariant 4"),
    Mutant("20 delete", "erase blanks its chunks", ERASE, "invariant 11"),
    Mutant("20 rebuild key share", "a rebuild does not hold its chunks", "a rebuild against an erasure", "invariant 4"),
    Mutant("20 rebuild listed", "erase does not know of a rebuild's tables", "a rebuild against an erasure", "invariant 4"),
    Mutant("20 tables listed late", "erase lists the tables before it has its chunks", "a rebuild against an erasure", "invariant 4"),
    Mutant("21 replay", "a rebuild decides from the targets", "a rebuild against a switch", "invariant 6"),
    Mutant("21 tail", "a swap does not replay the tail", "a rebuild against a switch", "invariant 10"),
    Mutant("21 checkpoints", "a swap does not lock the checkpoints", "a rebuild against a switch", "invariant 10"),
    Mutant("21 tables", "a swap does not lock the tables' row", "a rebuild against the collector", "deadlock"),
    Mutant("22", "the lease is looked at in a statement before the lock", PROJECTORS, "one in flight"),
    Mutant("manifests departed", "a chunk departs with its segment", "chunks that move and repeat", "invariant 6"),
    Mutant("manifests half swept", "a segment of a collected version is used again", "a caller who holds a chunk, a writer, the collector", "invariant 3"),
    Mutant("manifests swept last", "a segment goes before the last of its chunks", "a caller who holds a chunk, the collector", "invariant 9"),
)  # fmt: skip

SPARES = (
    Spare("8 unchanged", "an unchanged append logs nothing", UNCHANGED, "it retries dead letters, which invariants 5 and 13 let stay open"),
    Spare("9 all partitions", "whoever adds a model locks one partition", "a model is added against a writer in another partition", "unneeded where the back-fill is done: it takes every file's lock and so meets each writer that looked too early; it matters where whoever adds the model dies before"),
    Spare("10 other versions", "a chunk is needed only if the event's own version is", TWICE, "unneeded for safety: whichever version needs the chunk logs it again (rule 8); it keeps the order"),
    Spare("13 embedded is not owed", "a chunk that is embedded is owed again", TWICE, "unneeded for safety: its vector is found as a copy, and storing it changes nothing; it spares the way"),
    Spare("15 committed", "a switch does not ask whether the target is committed", KEPT, "unneeded: the target is never open or collected (rules 5 and 19)"),
    Spare("16 dead_letter_retried", "a retry is no reason to look", "a bad chunk that is discarded and taken back", "unneeded for safety: the retry logs the chunk, and the embedded event that follows is a reason"),
    Spare("16 not shared", "segments of the active version are looked through too", COLLECT, "it is about cost: a segment that is active is complete"),
    Spare("18 needed stays", "search rows of the target and of open versions are removed", PROJECTORS, "unneeded for safety: the switch inserts what is missing (rule 17); it spares that"),
    Spare("19 latest", "the latest version is decided on", KEPT, "unneeded while at least one version is kept: none is newer than the latest"),
)  # fmt: skip

# Parts of rules that no order of statements decides, and where else they are tested.
ELSEWHERE = (
    ("1", "another isolation level is refused at the door", "an old snapshot is what `1 head` and `1 state` are about; the door is `test_rule_01_another_isolation_level_is_refused_at_every_door`"),
    ("7", "`expected_version` and the key are checked at the opening too", "cost: everything would be streamed before it is refused; `test_rule_07_the_expected_version_is_checked_before_anything_is_streamed`"),
    ("8", "what was discarded is not logged again", "cost: `test_rule_08_an_unchanged_append_does_not_retry_what_was_discarded`"),
    ("12", "a copy never crosses collections", "the model has one collection: `test_rule_12_a_copy_never_crosses_collections`"),
    ("17", "more than 1,000 missing rows are staged in batches first", "cost: `test_rule_17_many_missing_search_rows_are_staged_in_batches_first`"),
    ("20", "columns keep no statistics", "not a matter of interleavings: `test_rule_20_no_sample_of_what_was_erased_stays_in_the_statistics`"),
)  # fmt: skip
