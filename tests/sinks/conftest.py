"""A server that records what it is sent, and answers as it is told."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rapid.sinks.http_call import Caller
from tests.support.influx import Influx, serve_influx


@dataclass
class Call:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Recorder:
    """What came, and what is answered: (status, body, headers) by a function of the call."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    answer: object = staticmethod(lambda _call: (200, b"{}", {}))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = Call(self.path, dict(self.headers), body)
            found.calls.append(call)
            status, text, headers = found.answer(call)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def caller() -> Caller:
    return Caller(connect_s=5.0, read_s=10.0)


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with serve_influx(tmp_path_factory.mktemp("influx")) as server:
        yield server
