"""What happens when a rule, or a part of it, is left out: where that shows, and what it breaks."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One part of a rule left out; the name is what the programs ask `Rules.keep` for."""

    rule: str
    left_out: str
    scenario: str
    breaks: str
    what: str
    """What the programs do instead."""


MUTANTS = (
    Mutant("1", "1 head", "two writers of two files", "invariant 12", "the statement that locks reads the head"),
    Mutant("1", "1 state", "two writers that expect", "expected version", "a writer reads its file's state before the lock"),
    Mutant("2", "2", "two writers of one file, a", "nothing raised", "insert and select in one statement"),
    Mutant("3", "3", "erase against a consumer", "invariant 4", "erase deletes in one statement"),
    Mutant("4", "4", "a stream, a collector", "deadline", "a deadline from when the transaction began"),
    Mutant("lock order", "order of chunks", "two erasures", "lock order", "chunks locked backwards"),
    Mutant("5", "5", "a stream, a collector", "invariant 3", "not asked whether the version is open"),
    Mutant("6", "6 counter", "a stream, a collector", "invariant 12", "the latest plus one"),
    Mutant("6", "6 key looked up again", "erase against a consumer", "invariant 11", "the file is locked by number"),
    Mutant("6", "6 key set to null", "erase against a consumer", "invariant 11", "the key stays"),
    Mutant("7", "7 expected at the commit", "a stream that expects", "expected version", "checked at the opening alone"),
    Mutant("7", "7 key checked at the commit", "a stream that is tried", "invariant 12", "checked at the opening alone"),
    Mutant("7", "7 key recorded at the commit", "a stream that is tried", "answer", "recorded at the opening"),
    Mutant("8", "8 reused", "three versions", "invariant 5", "an append does not look up what it reuses"),
    Mutant("8", "8 rollback", "three versions", "invariant 5", "a rollback logs nothing"),
    Mutant("8", "8 the latest is the target", "three versions", "answer", "unchanged though rolled back"),
    Mutant("9", "9", "a model is added", "invariant 5", "models read once, before the partition's lock"),
    Mutant("10", "10 skip", "two writers of one file, a", "cost", "every chunk of a range is embedded"),
    Mutant("10", "10 open", "a stream whose", "invariant 5", "chunks of open versions are skipped"),
)
