"""A real InfluxDB: Debian's package `influxdb`."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

START_S = 60.0

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  index-version = "inmem"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[subscriber]
  enabled = false
[continuous_queries]
  enabled = false
"""


def find_influxd() -> str:
    """Return the server's program; skips the test where it is not installed."""
    found = shutil.which("influxd")
    if found is None:
        pytest.skip("needs InfluxDB: apt-get install influxdb")
    return found


class Influx:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, text: str, database: str = "") -> list[dict]:
        """Return the rows of a query, each as a dictionary with its tags."""
        body = urllib.parse.urlencode({"q": text, "db": database, "epoch": "ns"}).encode()
        with urllib.request.urlopen(f"{self.url}/query", data=body, timeout=30) as answer:  # noqa: S310 - our own server
            document = json.load(answer)
        rows = []
        for result in document["results"]:
            assert "error" not in result, result
            for series in result.get("series", []):
                for values in series["values"]:
                    rows.append({**series.get("tags", {}), **dict(zip(series["columns"], values, strict=True))})
        return rows


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def serve_influx(folder: Path) -> Iterator[Influx]:
    """Run a server; its ports come from the kernel, and are tried again if somebody else was faster."""
    program = find_influxd()
    never = threading.Event()
    for _ in range(3):
        port, rpc = _free_ports(2)
        config = folder / "influxdb.conf"
        config.write_text(CONFIG.format(folder=folder, port=port, rpc=rpc))
        with (folder / "influxd.log").open("ab") as log:
            server = subprocess.Popen([program, "run", "-config", str(config)], stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + START_S
            while server.poll() is None and time.monotonic() < deadline:
                try:
                    with urllib.request.urlopen(f"{url}/ping", timeout=5):  # noqa: S310 - our own server
                        yield Influx(url)
                        return
                except OSError:
                    never.wait(0.05)
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    raise AssertionError((folder / "influxd.log").read_text()[-2000:])
