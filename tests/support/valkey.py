"""A real Valkey for tests, from the wheel: started once, emptied between tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

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


def calls_of(server: EmbeddedValkey) -> dict[str, int]:
    """Return how often each command was sent by a client since the server began.

    Commands that run inside a function count too, in a server's own statistics; they are left out by
    looking at what clients sent: ``fcall``, blocking pops and stream reads.
    """
    with redis.Redis.from_url(server.url) as client:
        stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}
