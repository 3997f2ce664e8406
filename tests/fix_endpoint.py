"""A real HTTP server that answers `/v1/embeddings`, well or in whichever wrong way a test asks for.

`endpoint` gives it on a free port of this machine. By hand: `python -m tests.fix_endpoint`.
"""

import base64
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from chunkstore.models.endpoint import sending
from chunkstore.models.endpoint.model import EndpointModel
from chunkstore.models.endpoint.options import Options
from chunkstore.models.hashing import HashingModel

DIMENSIONS = 8
KEY = "sk-very-secret-0123456789"


class Request(msgspec.Struct, frozen=True):
    """What a client asked."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        """The inputs, in order."""
        return self.fields["input"]


class Reply(msgspec.Struct, frozen=True):
    """What the server says, whole or in parts as they come."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = {}
    length: int | None = None
    """What Content-Length claims; the truth unless given."""


Behaviour = Callable[[Request], Reply]


def tokens_of(text: str) -> int:
    """How many tokens this server holds a text to have: its words."""
    return len(text.split())


def answer(request: Request, dimensions: int = DIMENSIONS) -> dict[str, Any]:
    """The right answer, as fields: a hashing model's vectors."""
    length = request.fields.get("dimensions", dimensions)
    vectors = HashingModel(length).embed(request.texts)
    in_base64 = request.fields.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if in_base64
            else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    total = sum(map(tokens_of, request.texts))
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"object": "list", "model": request.fields["model"], "data": data, "usage": usage}


def good(request: Request) -> Reply:
    """The right answer."""
    return Reply(body=json.dumps(answer(request)).encode())


def failing(status: int, message: str = "no", **headers: str) -> Behaviour:
    """An error in the shape of OpenAI's, with headers (`retry_after="1"`)."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, body, named)


def changed(change: Callable[[dict[str, Any]], Any]) -> Behaviour:
    """The right answer after `change`, which edits its fields or returns others. NaN is written as NaN."""

    def reply(request: Request) -> Reply:
        fields = answer(request)
        return Reply(body=json.dumps(change(fields) or fields).encode())

    return reply


def saying(body: bytes, status: int = 200, **headers: str) -> Behaviour:
    """These bytes, whatever was asked."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, body, named)


def when(word: str, then: Behaviour, otherwise: Behaviour = good) -> Behaviour:
    """One behaviour where a text of the request holds the word, another where none does."""
    return lambda request: (then if any(word in text for text in request.texts) else otherwise)(request)


class Endpoint:
    """The server. `then` queues behaviours for the next requests; after those it behaves as `always` says."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.always: Behaviour = good
        self.closing = threading.Event()
        """Set at the end: what a behaviour waits for, so that none outlives the test."""
        self._next: deque[Behaviour] = deque()
        self._lock = threading.Lock()
        self._under_way = 0
        self.most_at_once = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """The base URL, as OPENAI_BASE_URL takes it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def texts(self) -> list[str]:
        """Every text that was sent, in order."""
        return [text for request in self.requests for text in request.texts]

    def then(self, *behaviours: Behaviour) -> None:
        """The next requests meet these, one each."""
        self._next.extend(behaviours)

    def start(self) -> None:
        """Begins to answer; before, connections wait."""
        self._thread.start()

    def stop(self) -> None:
        """Ends: further connections are refused."""
        self.closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def trickle(self, body: bytes, seconds: float) -> Iterator[bytes]:
        """The body a byte at a time, with a pause before each."""
        for byte in body:
            if self.closing.wait(seconds):
                return
            yield bytes([byte])

    def _reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            behaviour = self._next.popleft() if self._next else self.always
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            return behaviour(request)
        finally:
            with self._lock:
                self._under_way -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = endpoint._reply(Request(self.path, headers, json.loads(body)))
                try:
                    self._send(reply)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _send(self, reply: Reply) -> None:
                parts = [reply.body] if isinstance(reply.body, bytes) else reply.body
                known = len(reply.body) if isinstance(reply.body, bytes) else None
                length = known if reply.length is None else reply.length
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if length is not None:
                    self.send_header("Content-Length", str(length))
                self.close_connection = length != known or length is None
                self.end_headers()
                for part in parts:
                    self.wfile.write(part)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
                pass

        return Handler


def model_of(endpoint: Endpoint, **options: Any) -> EndpointModel:
    """A model behind the server, by its address alone."""
    given = {"model": "m", "url": endpoint.url, "dimensions": DIMENSIONS} | options
    return EndpointModel(Options(**given))


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of hundredths of a second where the server names none."""
    monkeypatch.setattr(sending, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(sending, "_LONGEST_PAUSE", 0.02)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that answers well, until a test says otherwise."""
    made = Endpoint()
    made.start()
    yield made
    made.stop()


if __name__ == "__main__":
    by_hand = Endpoint()
    by_hand.start()
    sys.stdout.write(f"{by_hand.url}\n")
    sys.stdout.flush()
    by_hand.closing.wait()
