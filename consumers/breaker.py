"""The circuit breaker: while a model's provider is down nothing is claimed, and no attempt is consumed.

Source of the pattern: Nygard, "Release It!" (2007), with one trial call after each pause.
"""

from time import monotonic

import anyio

from chunkstore.errors import ModelUnavailable

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


class Breaker:
    """Open after a failure of the provider, for a pause that doubles until a call succeeds."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._until = 0.0
        self.last_error: ModelUnavailable | None = None

    def failed(self, error: ModelUnavailable) -> None:
        """Opens the breaker, for longer each time."""
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._until = monotonic() + self._pause
        self.last_error = error

    def succeeded(self) -> None:
        """Closes the breaker."""
        self._pause = self._until = 0.0
        self.last_error = None

    @property
    def is_open(self) -> bool:
        """Whether the pause is still going on."""
        return monotonic() < self._until

    async def closed(self, stop: anyio.Event) -> None:
        """Returns when a call may be tried, or at the stop."""
        left = self._until - monotonic()
        if left > 0:
            with anyio.move_on_after(left):
                await stop.wait()
