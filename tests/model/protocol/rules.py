"""Which rules the programs keep, and the few numbers that the protocol leaves open."""

from typing import NamedTuple


class Rules(NamedTuple):
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

    def keep(self, rule: str) -> bool:
        """Whether the rule is kept."""
        return rule not in self.without
