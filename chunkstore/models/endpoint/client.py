"""Sends one request and reads its answer, bounded in time and size; makes three kinds of all failures.

No message holds the key. One that the user may see in a log holds nothing that the service made of a text.
"""

import weakref
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from chunkstore.errors import MissingExtra, ModelRefused
from chunkstore.models.endpoint import answers
from chunkstore.models.endpoint.answers import Answer, UnusableAnswer
from chunkstore.models.endpoint.key import ApiKey
from chunkstore.models.endpoint.options import Options, base_url
from chunkstore.models.endpoint.pacing import retry_after

if TYPE_CHECKING:
    from httpx2 import Response

_CONNECT_SECONDS: Final = 10.0
_ERROR_BYTES: Final = 65_536
_ROOM_BYTES: Final = 1_048_576
_BYTES_PER_NUMBER: Final = 40
_MOST_DIMENSIONS: Final = 16_000
_PASSING: Final = {408, 409, 425, 429}
_REFUSING: Final = {401, 402, 404, 405, 407, 410}
_RUN: Final = 24
"""Characters in a row that a message and a text have in common, from which on it repeats the text."""
_WORD: Final = 4
"""The shortest text that a message repeats and not just happens to hold."""


class Passing(Exception):
    """May go well another time, after `retry_after` seconds where the service says so.

    `suspicious`: it may also be these texts that the service trips over. `unusable`: it did answer.
    """

    def __init__(
        self,
        reason: str,
        *,
        suspicious: bool = False,
        unusable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.suspicious = suspicious or unusable
        self.unusable = unusable
        self.retry_after = retry_after


class Rejected(Exception):
    """The service refuses the request: for one of its texts, for its size, or as it refuses every one."""


class Form(msgspec.Struct, frozen=True):
    """Which optional fields a request has; not every service takes them."""

    base64: bool
    dimensions: bool


class Client:
    """The one connection pool of a model, safe for several threads."""

    def __init__(self, options: Options, key: ApiKey) -> None:
        if find_spec("httpx2") is None:
            raise MissingExtra("httpx2 is not installed: pip install 'chunkstore[endpoint]'")
        import httpx2

        self._options = options
        self._key = key
        self.url = base_url(options)
        self._http = httpx2.Client(
            headers={"User-Agent": "chunkstore", "Content-Type": "application/json", **key.headers()},
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=options.concurrency),
            follow_redirects=False,
        )
        self.close = weakref.finalize(self, self._http.close)

    def send(self, texts: list[str], form: Form, dimensions: int | None, timeout: float) -> Answer:
        """The checked answer, whole within `timeout` seconds. Raises Passing, Rejected or ModelRefused."""
        import httpx2

        deadline = monotonic() + timeout
        waits = httpx2.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout))
        try:
            with self._http.stream(
                "POST", f"{self.url}/embeddings", content=self._request(texts, form), timeout=waits
            ) as response:
                if response.status_code != 200:
                    body = _read(response, _ERROR_BYTES, deadline, whole=False)
                    raise self._failure(response, answers.message(body), texts)
                size = _ROOM_BYTES + len(texts) * (dimensions or _MOST_DIMENSIONS) * _BYTES_PER_NUMBER
                return answers.read(_read(response, size, deadline), len(texts), dimensions)
        except UnusableAnswer as error:
            raise Passing(f"{self.url} gave no answer that can be used: {error}", unusable=True) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ModelRefused(f"the certificate of {self.url} is not trusted: {error}") from error
            raise Passing(f"{self.url} cannot be reached: {self._key.scrubbed(str(error))}") from error
        except httpx2.TimeoutException as error:
            raise self._too_slow(timeout) from error
        except httpx2.DecodingError as error:
            raise Passing(f"{self.url} sent what cannot be unpacked", unusable=True) from error
        except httpx2.HTTPError as error:
            reason = f"{self.url} broke off: {type(error).__name__}"
            raise Passing(reason, suspicious=True) from error
        except TimeoutError:
            raise self._too_slow(timeout) from None

    def _request(self, texts: list[str], form: Form) -> bytes:
        fields: dict[str, object] = {"model": self._options.model, "input": texts}
        if form.base64:
            fields["encoding_format"] = "base64"
        if form.dimensions:
            fields["dimensions"] = self._options.dimensions
        return msgspec.json.encode(fields)

    def _failure(self, response: "Response", said: str, texts: list[str]) -> Exception:
        status = response.status_code
        after = retry_after(response.headers)
        said = self._key.scrubbed(said)
        bare = f"{self.url} answered {status}"
        shown = f"{bare}: {said}" if said and not _repeats(said, texts) else bare
        if status in _PASSING:
            return Passing(shown, retry_after=after)
        if status in _REFUSING:
            return ModelRefused(f"{shown} (model {self._options.model!r})")
        if 300 <= status < 400:
            return ModelRefused(f"{bare}: it sends on to another address; give that one as its URL")
        if 400 <= status < 500:
            return Rejected(f"{bare}: {said}")
        return Passing(
            shown, suspicious=status in (500, 501), unusable=200 <= status < 300, retry_after=after
        )

    def _too_slow(self, timeout: float) -> Passing:
        return Passing(f"{self.url} did not answer within {timeout:g} s", suspicious=True)


def _read(response: "Response", size: int, deadline: float, *, whole: bool = True) -> bytes:
    """The body; where it is not wanted whole, its beginning. Raises UnusableAnswer, TimeoutError."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > size:
            if not whole:
                return bytes(body[:size])
            raise UnusableAnswer(f"it has more than {size:,} bytes")
        if monotonic() > deadline:
            raise TimeoutError
    return bytes(body)


def _repeats(said: str, texts: list[str]) -> bool:
    """Whether the service's message may hold a part of a text, which no log is to have."""
    runs = {said[start : start + _RUN] for start in range(max(1, len(said) - _RUN + 1))}
    return any(
        (len(text) >= _WORD and text in said) or any(run in text for run in runs if len(run) == _RUN)
        for text in texts
    )
