"""When the next request may go: so many requests and tokens a minute, and no sooner than the service allows.

Source of the pacing: the generic cell rate algorithm (ITU-T I.371) without bursts, one time for each limit.
Libraries of rate limits keep an entry for every token of the last minute; this keeps two numbers.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from threading import Event, Lock
from time import monotonic

from chunkstore.models.endpoint.options import Options


class Pacing:
    """Gives every request of a process its turn. Times are of the monotonic clock, in seconds."""

    def __init__(self, options: Options) -> None:
        self._seconds_per_request = 60 / (options.requests_per_minute or float("inf"))
        self._seconds_per_token = 60 / (options.tokens_per_minute or float("inf"))
        self._next_by_requests = self._next_by_tokens = self._held_until = 0.0
        self._lock = Lock()

    def hold(self, seconds: float) -> None:
        """No request goes for so long: the service asked for it."""
        with self._lock:
            self._held_until = max(self._held_until, monotonic() + seconds)

    def held(self) -> float:
        """Seconds until the service takes requests again, by its own word."""
        return max(0.0, self._held_until - monotonic())

    def turn(self, tokens: int) -> float:
        """Takes a turn for a request of so many tokens; returns the seconds until it comes."""
        with self._lock:
            now = monotonic()
            start = max(now, self._next_by_requests, self._next_by_tokens)
            self._next_by_requests = start + self._seconds_per_request
            self._next_by_tokens = start + tokens * self._seconds_per_token
        return start - now

    def wait(self, tokens: int, stop: Event) -> None:
        """Returns when the turn of a request of so many tokens has come, or at the stop."""
        stop.wait(self.turn(tokens))
        while not stop.is_set() and (left := self.held()) > 0:
            stop.wait(left)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date.

    None where it does not say, or says nonsense; a time that has passed is 0.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    if (seconds := _number(given)) is not None:
        return seconds
    moment = _moment(given)
    if moment is None:
        return None
    now = _moment(headers.get("date")) or datetime.now(
        UTC
    )  # the service's clock where it is said: ours may differ
    return max(0.0, (moment - now).total_seconds())


def _moment(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if isfinite(number) else None
