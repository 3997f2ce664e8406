"""How many chunks a consumer claims at once: what its model embeds in half a second, within bounds.

What a range costs whatever its length (a claim, two commits, an event) is shared by more chunks where the
model is fast; where it is slow a range stays short, so that little is lost with a consumer that dies.
"""

LEAST = 256
MOST = 1024
MOST_GIVEN = 65_536
"""By a caller: all of a range is in memory at once."""
_SECONDS = 0.5


class Batching:
    """The size of the next range: `fixed`, or by how fast the model was last."""

    def __init__(self, fixed: int | None = None) -> None:
        self._is_fixed = fixed is not None
        self.size = LEAST if fixed is None else fixed

    def took(self, texts: int, seconds: float) -> None:
        """Says how long the model took for that many texts; few texts say nothing about its speed."""
        if not self._is_fixed and texts >= LEAST // 2:
            in_time = int(texts * _SECONDS / max(seconds, 1e-6))
            self.size = min(max(in_time, LEAST), MOST)
