"""Gets an answer for some texts: tries again what may pass, and halves what the service trips over.

A text is blamed only after the service has answered a harmless one; if it does not answer that either, the
service is down (ModelUnavailable) or refuses us (ModelRefused), and no text is at fault.
"""

from threading import Event, Lock
from typing import Final

import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_before_delay,
    wait_exponential,
    wait_random,
)

from chunkstore.errors import ModelRefused, ModelUnavailable
from chunkstore.models.endpoint.answers import Answer
from chunkstore.models.endpoint.client import Client, Form, Passing, Rejected
from chunkstore.models.endpoint.options import Options
from chunkstore.models.endpoint.pacing import Pacing

_TRIES: Final = 8
_SUSPICIOUS_TRIES: Final = 3
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 20.0
_LONGEST_HOLD: Final = 3600.0


class Text(msgspec.Struct, frozen=True):
    """A text as it is sent, where it stands in the batch, and how many tokens it is held to have."""

    position: int
    text: str
    tokens: int


HARMLESS: Final = Text(0, "a", 1)


class Effort(msgspec.Struct, frozen=True):
    """How long is waited for an answer, in seconds: for one request, and until it is not tried again."""

    timeout: float
    patience: float


class Spending:
    """Counts what a process spends on a service."""

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self._lock = Lock()

    def add(self, *, requests: int = 0, tokens: int = 0) -> None:
        """So many more requests, so many more tokens by the service's count."""
        with self._lock:
            self.requests += requests
            self.tokens += tokens


class Sender:
    """Sends texts to one service, in the form that it takes. Safe for several threads."""

    def __init__(self, options: Options, client: Client, dimensions: int | None) -> None:
        self.spending = Spending()
        self.dimensions = dimensions
        self.most_inputs = options.inputs
        self._timeout = options.timeout
        self._client = client
        self._pacing = Pacing(options)
        self._forms = [
            Form(base64=base64, dimensions=asked)
            for asked in ([True, False] if options.dimensions else [False])
            for base64 in (True, False)
        ]
        self._proven = False

    def answer(self, texts: list[Text], stop: Event, effort: Effort) -> Answer:
        """The vectors by position, and what is wrong with each text that has none.

        Raises ModelUnavailable where the service is down, or when `stop` is set; ModelRefused.
        """
        if self._pacing.held() > effort.patience:
            raise ModelUnavailable(f"{self._client.url} takes no requests for {self._pacing.held():.0f} s")
        try:
            return self._sent(texts, stop, effort)
        except Passing as error:
            if not error.suspicious or stop.is_set():
                raise ModelUnavailable(str(error)) from error
            reason, times, lasting = str(error), 2, error.unusable
        except Rejected as error:
            reason, times, lasting = str(error), 1, True
        # Out here, so that an error of the proof does not carry the other along: its reason may hold a text.
        self._prove(stop, effort.timeout, times=times)
        if len(texts) == 1:
            return Answer({}, {texts[0].position: reason}, None)
        return self._halved(texts, stop, effort, lasting=lasting)

    def learn_dimensions(self) -> int:
        """The length of the service's vectors, found by asking. Raises ModelUnavailable, ModelRefused."""
        if self.dimensions is None:
            self.dimensions = len(self._prove(Event(), self._timeout, times=1).vectors[0])
        return self.dimensions

    def _halved(self, texts: list[Text], stop: Event, effort: Effort, *, lasting: bool) -> Answer:
        """The answers to both halves; `lasting`: what became of the whole would be so another time."""
        middle = (len(texts) + 1) // 2
        first = self.answer(texts[:middle], stop, effort)
        second = self.answer(texts[middle:], stop, effort)
        errors = first.errors | second.errors
        if lasting and not errors:  # then there were too many texts in one request
            self.most_inputs = min(self.most_inputs, middle)
        return Answer(first.vectors | second.vectors, errors, None)

    def _prove(self, stop: Event, timeout: float, *, times: int) -> Answer:
        """The answer to a harmless text, got so many times in a row."""
        once = Effort(timeout, patience=0)
        try:
            for _ in range(times - 1):
                self._sent([HARMLESS], stop, once)
            return self._sent([HARMLESS], stop, once)
        except Rejected as error:
            raise ModelRefused(f"{error} (to a harmless text, so to any)") from error
        except Passing as error:
            if error.unusable and not self._proven:
                raise ModelRefused(f"{error}; is this the address of an embeddings service?") from error
            raise ModelUnavailable(str(error)) from error

    def _sent(self, texts: list[Text], stop: Event, effort: Effort) -> Answer:
        """The answer in the first form that the service takes; that form is kept."""
        refused: Rejected | None = None
        for form in list(self._forms):
            try:
                answer = self._tried(texts, form, stop, effort)
            except Rejected as error:
                refused = refused or error
            else:
                self._forms = [form]
                self._proven = True
                return answer
        assert refused is not None
        raise refused

    def _tried(self, texts: list[Text], form: Form, stop: Event, effort: Effort) -> Answer:
        backoff = wait_exponential(_FIRST_PAUSE, _LONGEST_PAUSE) + wait_random(0, _FIRST_PAUSE)
        too_late = stop_before_delay(effort.patience)

        def pause(state: RetryCallState) -> float:
            asked = _passing(state).retry_after
            return asked or backoff(state)

        def enough(state: RetryCallState) -> bool:
            most = _SUSPICIOUS_TRIES if _passing(state).suspicious else _TRIES
            return stop.is_set() or state.attempt_number >= most or too_late(state)

        retrying = Retrying(
            sleep=sleep_using_event(stop),
            retry=retry_if_exception_type(Passing),
            wait=pause,
            stop=enough,
            reraise=True,
        )
        return retrying(self._once, texts, form, stop, effort.timeout)

    def _once(self, texts: list[Text], form: Form, stop: Event, timeout: float) -> Answer:
        self._pacing.wait(sum(text.tokens for text in texts), stop)
        if stop.is_set():
            raise ModelUnavailable("stopped")
        self.spending.add(requests=1)
        try:
            answer = self._client.send([text.text for text in texts], form, self.dimensions, timeout)
        except Passing as error:
            if error.retry_after:
                self._pacing.hold(min(error.retry_after, _LONGEST_HOLD))
            raise
        self.spending.add(tokens=answer.tokens or 0)
        return Answer(
            {texts[index].position: vector for index, vector in answer.vectors.items()},
            {texts[index].position: reason for index, reason in answer.errors.items()},
            answer.tokens,
        )


def _passing(state: RetryCallState) -> Passing:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Passing)
    return error
