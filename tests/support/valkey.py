"""A real Valkey for tests, from the wheel: started once, emptied between tests."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.client import Monitor

from rapid.dispatch.valkey import EmbeddedValkey


@contextmanager
def serve_valkey(data_dir: Path) -> Iterator[EmbeddedValkey]:
    """Run a Valkey on a directory until the block ends."""
    with EmbeddedValkey(data_dir) as server:
        yield server


def flush(server: EmbeddedValkey) -> None:
    """Empty a server, its functions left."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def calls_between(server: EmbeddedValkey, do: Callable[[], object]) -> list[str]:
    """Return the commands that clients sent while something was done.

    Commands that a server-side function runs are left out: the server's monitor marks them.
    """
    marker = uuid.uuid4().hex
    with redis.Redis.from_url(server.url) as other, redis.Redis.from_url(server.url) as client:
        other.ping()  # connected before the watch begins
        with client.monitor() as monitor:
            do()
            other.echo(marker)
            return _sent(monitor, marker)


def _sent(monitor: Monitor, marker: str) -> list[str]:
    sent: list[str] = []
    for entry in monitor.listen():
        if marker in entry["command"]:
            break
        if entry["client_type"] != "lua":
            sent.append(" ".join(entry["command"].split()[:2]))
    return sent
