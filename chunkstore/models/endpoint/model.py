"""A model behind `/v1/embeddings`: texts cut into requests that the service takes, sent side by side.

No text gets another one's vector and none is cut in silence. What was answered before a call failed is kept
for the next one, so that a strict rate limit slows down and never starves.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import ChunkstoreError, TextsFailed
from chunkstore.models.endpoint import tokens
from chunkstore.models.endpoint.answers import Answer
from chunkstore.models.endpoint.client import Client
from chunkstore.models.endpoint.kept import Kept
from chunkstore.models.endpoint.key import find_key
from chunkstore.models.endpoint.options import KNOWN, Options, dimensions_of, name_of
from chunkstore.models.endpoint.sending import Effort, Sender, Text
from chunkstore.models.protocol import Distance, Spent

_QUERY_SECONDS: Final = 10.0


class EndpointModel:
    """Any service that answers `/v1/embeddings` as OpenAI's does; vectors are compared by cosine.

    Its key is found as `find_key` says. `max_tokens` is there where it is known. Raises InvalidInput for a
    key or an address that cannot be one, MissingExtra, UnknownModel for a tokenizer that is not there; where
    only the service knows the dimensions it is asked, so ModelUnavailable and ModelRefused too.
    """

    distance: Distance = "cosine"
    refuses_long_texts: Final = True
    """A text that the model would read only in part has no vector, but an error."""

    def __init__(self, options: Options) -> None:
        self.name: Final = name_of(options)
        self._options = options
        self._count = tokens.counter(options.tokenizer)
        self._client = Client(options, find_key(options))
        self._sender = Sender(options, self._client, dimensions_of(options))
        self._kept = Kept()
        known = KNOWN.get(options.model)
        self._most = options.max_tokens or (known.max_tokens if known else None)
        if self._most is not None:  # without the attribute it is a model of which no limit is known
            self.max_tokens = self._most
        self.dimensions: Final = self._sender.learn_dimensions()

    @property
    def spent(self) -> Spent:
        """What all calls so far came to, by the service's own count of tokens."""
        spending, price = self._sender.spending, self._options.price
        cost = None if price is None else spending.tokens * price / 1_000_000
        return Spent(spending.requests, spending.tokens, cost)

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._client.url

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`, one row a text, in the order of the texts.

        Raises TextsFailed with the vectors that came and the reason for each text that has none,
        ModelUnavailable where the service is down, ModelRefused where it refuses the key, the model or all.
        """
        prefix = self._options.document_prefix
        return self._embedded(
            [prefix + text for text in texts], Effort(self._options.timeout, self._options.patience)
        )

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """`(dimensions,) float32`; raises as `embed`, but within half a minute where the service is down."""
        timeout, patience = (
            min(_QUERY_SECONDS, most) for most in (self._options.timeout, self._options.patience)
        )
        return self._embedded([self._options.query_prefix + text], Effort(timeout, patience))[0]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with its prefix; an estimate, mostly too high, unless a tokenizer was named."""
        return self._count([self._options.document_prefix + text for text in texts])

    def close(self) -> None:
        """Closes the connections; done by itself when the model is no longer used."""
        self._client.close()

    def __repr__(self) -> str:
        return f"EndpointModel({self.name!r}, {self.url!r})"

    # --- inside ---------------------------------------------------------------------------------

    def _embedded(self, texts: list[str], effort: Effort) -> NDArray[np.float32]:
        errors = {
            at: "the text holds half a character" for at, text in enumerate(texts) if not _is_utf8(text)
        }
        vectors = self._kept.take({at: text for at, text in enumerate(texts) if at not in errors})
        requests = self._requests([at for at in range(len(texts)) if at not in errors | vectors], texts)
        try:
            for answer in self._answers(requests, effort):
                vectors |= answer.vectors
                errors |= answer.errors
        except ChunkstoreError:
            self._kept.put({texts[at]: vector for at, vector in vectors.items()})
            raise
        rows = np.full((len(texts), self.dimensions), np.nan, np.float32)
        for at, vector in vectors.items():
            rows[at] = vector
        if errors:
            raise TextsFailed(rows, errors)
        return rows

    def _requests(self, wanted: Sequence[int], texts: Sequence[str]) -> list[list[Text]]:
        """The texts wanted, in requests of a size that the service takes."""
        counts = self._count([texts[at] for at in wanted])
        counted = [Text(at, texts[at], count) for at, count in zip(wanted, counts, strict=True)]
        per_minute = self._options.tokens_per_minute or self._options.tokens
        return list(
            _cut(counted, self._sender.most_inputs, min(self._options.tokens, per_minute), self._most)
        )

    def _answers(self, requests: list[list[Text]], effort: Effort) -> Iterator[Answer]:
        """The answers to the requests as they come; after a failure those that are under way, and then it."""
        stop, failures = Event(), list[ChunkstoreError]()

        def answered(request: list[Text]) -> Answer | None:
            try:
                return self._answer(request, stop, effort)
            except ChunkstoreError as error:
                failures.append(error)
                stop.set()  # here, before this thread takes the next request
                return None

        with ThreadPoolExecutor(self._options.concurrency, "chunkstore-endpoint") as pool:
            for future in as_completed([pool.submit(answered, request) for request in requests]):
                answer = future.result()
                if answer is not None:
                    yield answer
        if failures:
            raise failures[0]

    def _answer(self, request: list[Text], stop: Event, effort: Effort) -> Answer:
        """The answer to one request, but for a text that was cut, or that would be."""
        most, counted = self._most, self._options.tokenizer is not None
        if len(request) > 1 or most is None:
            return self._sender.answer(request, stop, effort)
        text = request[0]
        if counted and text.tokens > most:
            reason = f"the text has {text.tokens:,} tokens, and the model reads {most:,}"
            return Answer({}, {text.position: reason}, None)
        answer = self._sender.answer(request, stop, effort)
        reason = None if counted or answer.errors else _sign_of_a_cut(text.tokens, answer.tokens, most)
        return answer if reason is None else Answer({}, {text.position: reason}, answer.tokens)


def _sign_of_a_cut(estimated: int, read: int | None, most: int) -> str | None:
    """Why a text may have been cut by a service that reads so many tokens; None where it was not."""
    if read is not None:
        shown = f"the service read {read:,} tokens, all that the model takes: the rest was cut"
        return shown if read >= most else None
    shown = f"the text may have {estimated:,} tokens (an estimate), and the model reads {most:,}"
    return f"{shown}; the service does not say what it read: name a tokenizer" if estimated > most else None


def _cut(texts: list[Text], most_inputs: int, most_tokens: int, alone: int | None) -> Iterator[list[Text]]:
    """The texts in order, as requests of so many inputs and tokens; a text of over `alone` tokens alone."""
    request: list[Text] = []
    total = 0
    for text in texts:
        over = alone is not None and text.tokens > alone
        if request and (over or len(request) >= most_inputs or total + text.tokens > most_tokens):
            yield request
            request, total = [], 0
        request.append(text)
        total += text.tokens
        if over:
            yield request
            request, total = [], 0
    if request:
        yield request


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
