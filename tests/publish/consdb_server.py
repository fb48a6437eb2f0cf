"""A server that answers as ConsDB's pqserver does, and records what it was told.

Its rules are those of ``handlers/external.py`` and ``models.py`` of lsst-dm/consdb: rows by day, number and detector; a
row with a column the table lacks is refused whole with 404 and "Invalid extra columns"; values are booleans, numbers or
texts, and null is refused with 422; ``u=1`` changes the columns a row names and no others.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TABLES = {
    "visit1_quicklook": {
        "visit_id", "day_obs", "seq_num", "n_inputs", "n_psf_star_total", "n_psf_star_median", "z4",
        *(f"{name}_{which}" for name in ("psf_sigma", "sky_bg", "sky_noise", "seeing_zenith_500nm", "zero_point")
          for which in ("min", "median", "max")),
    },
    "ccdvisit1_quicklook": {
        "ccdvisit_id", "day_obs", "seq_num", "detector", "psf_sigma", "sky_bg", "sky_noise", "zero_point",
        "seeing_zenith_500nm", "n_psf_star", "psf_ixx", "psf_iyy", "psf_ixy", "z4",
    },
    "exposure_quicklook": {
        "exposure_id", "day_obs", "seq_num", "postisr_pixel_median_median", "postisr_pixel_median_mean",
        "postisr_pixel_median_max",
    },
}  # fmt: skip


class ConsDBServer:
    """What it holds, and how it misbehaves."""

    def __init__(self) -> None:
        self.url = ""
        self.rows: dict[tuple, dict] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.status: int | None = None
        """If given, every answer has it: an outage."""

        self.bad_detectors: set[int] = set()
        self.hides_schema = False
        self.lock = threading.Lock()
        self.recorded = threading.Condition(self.lock)

    def wait_for_rows(self, n: int, timeout_s: float = 60.0) -> None:
        """Wait until so many rows are there."""
        with self.recorded:
            assert self.recorded.wait_for(lambda: len(self.rows) >= n, timeout_s), self.rows.keys()

    def wait_for_requests(self, n: int, timeout_s: float = 60.0) -> None:
        """Wait until so many requests have come, from the first on."""
        with self.recorded:
            assert self.recorded.wait_for(lambda: len(self.requests) >= n, timeout_s), self.requests

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if self.status is not None:
            return self.status, {"message": "not now"}
        parts = urlsplit(path)
        words = parts.path.removeprefix("/consdb/").split("/")
        if words[0] == "schema" and method == "GET":
            _, instrument, table = words
            if self.hides_schema or table not in TABLES or instrument != "lsstcam":
                return 404, {"message": "Invalid table", "value": table}
            return 200, {column: ["DOUBLE", "words"] for column in TABLES[table]}
        if words[0] != "insert" or words[3] != "by_seq_num":
            return 405, {"detail": "Method Not Allowed"}
        _, instrument, table, _, day_obs, seq_num, *detector = words
        values = json.loads(body)["values"]
        if any(not isinstance(value, bool | int | float | str) for value in values.values()):
            return 422, {"message": "Validation error"}
        if instrument != "lsstcam" or table not in TABLES:
            return 404, {"message": "Invalid table", "value": table, "valid": list(TABLES)}
        extra = values.keys() - TABLES[table]
        if extra:
            return 404, {"message": "Invalid extra columns", "value": ",".join(extra)}
        if detector and int(detector[0]) in self.bad_detectors:
            return 404, {"message": "Invalid detector", "value": detector[0]}
        key = (table, int(day_obs), int(seq_num), *(int(number) for number in detector))
        if key in self.rows and parse_qs(parts.query).get("u") != ["1"]:
            return 500, {"message": "duplicate key"}
        self.rows[key] = self.rows.get(key, {}) | values
        self.recorded.notify_all()
        return 200, {"message": "Data inserted", "instrument": instrument, "table": table}


@contextmanager
def serve_consdb() -> Iterator[ConsDBServer]:
    """Run the server on a free loopback port."""
    consdb = ConsDBServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._do("GET")

        def do_POST(self) -> None:
            self._do("POST")

        def _do(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with consdb.lock:
                consdb.requests.append((method, self.path))
                consdb.recorded.notify_all()
                consdb.tokens.add(self.headers.get("Authorization", ""))
                status, answer = consdb.answer(method, self.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    consdb.url = f"http://127.0.0.1:{server.server_port}/consdb"
    try:
        yield consdb
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
