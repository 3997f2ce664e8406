"""Which rules the programs keep, and the few numbers that the protocol leaves open."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rules:
    """`without` names the rules that are left out; the names are those of `mutants`."""

    without: frozenset[str] = frozenset()
    batch: int = 2
    """Chunks that a claim takes at most."""
    attempts: int = 2
    """Failures of a single chunk before it is given up."""
    keep_last: int = 1
    """Versions that retention keeps."""
    renewals: bool = False
    """Whether consumers may renew a lease while the model works."""
    asked: set[str] = field(default_factory=set[str])
    """The rules that some program came to."""

    def keep(self, rule: str) -> bool:
        """Whether the rule is kept."""
        self.asked.add(rule)
        return rule not in self.without
