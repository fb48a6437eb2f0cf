"""A gate before a bucket's server, that can be shut: how a night takes the raws' bucket away from a system.

The system is told of the gate in place of the server; the camera's side goes on writing past it. While it is shut, connections
that were open are broken off and new ones end before a word is said.
"""

import asyncio
import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

from rapid.errors import ConfigurationError, StoreError
from rapid.products.s3 import is_s3_uri, parse_store_url
from rapid.products.store import open_products

START_TIMEOUT_S = 30.0
PIECE = 1 << 16


class S3Gate:
    """Passes connections on to the server of a bucket, or does not; from entering to leaving a `with` block.

    Parameters
    ----------
    url
        ``s3://bucket/prefix?endpoint_url=http://host:port``.

    Raises
    ------
    ConfigurationError
        Raised if the URL names no endpoint, or one that is not plain HTTP: a certificate is not the gate's.
    """

    def __init__(self, url: str) -> None:
        self._place = parse_store_url(url)
        server = urlsplit(self._place.endpoint_url or "")
        if server.scheme != "http" or server.hostname is None:
            raise ConfigurationError(
                "raws", f"{url}: only a bucket behind endpoint_url=http://... can be cut off from a system"
            )
        self._host, self._port = server.hostname, server.port or 80
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="S3 gate", daemon=True)
        self._ready = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._shut_until_s = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        # Bound from the beginning, so that its address can be told to roles that start later.
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.n_refused = 0
        """Connections that found it shut, or were broken off."""

    @property
    def url(self) -> str:
        """The bucket's URL through the gate."""
        place = self._place
        endpoint_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        options = {"endpoint_url": endpoint_url, "region": place.region, "profile": place.profile}
        said = urlencode({name: value for name, value in options.items() if value})
        return f"s3://{'/'.join(part for part in (place.bucket, place.path) if part)}?{said}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise StoreError(f"the gate before {self._host}:{self._port} did not open in {START_TIMEOUT_S:.0f} s")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)

    def cut(self, for_s: float) -> None:
        """Be shut from now on, for so long; a cut that lasts longer already goes on. From any thread."""
        self._open.clear()
        self._loop.call_soon_threadsafe(self._shut, for_s)

    def wait_until_open(self, timeout_s: float) -> bool:
        """Wait until it is open; return whether it is."""
        return self._open.wait(timeout_s)

    # -- in its own thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._take, sock=self._socket))
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._break_off()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    def _shut(self, for_s: float) -> None:
        self._shut_until_s = max(self._shut_until_s, time.monotonic() + for_s)
        self._open.clear()
        self.n_refused += len(self._writers) // 2
        self._break_off()
        self._loop.call_later(for_s, self._open_if_over)

    def _open_if_over(self) -> None:
        left_s = self._shut_until_s - time.monotonic()
        if left_s <= 0:
            self._open.set()
        elif not self._open.is_set():
            self._loop.call_later(left_s, self._open_if_over)

    def _break_off(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = [writer]
        self._writers.add(writer)
        try:
            if not self._open.is_set():
                self.n_refused += 1
                return
            with contextlib.suppress(OSError):
                there, onward = await asyncio.open_connection(self._host, self._port)
                ours.append(onward)
                self._writers.add(onward)
                if not self._open.is_set():
                    return
                await asyncio.gather(_pass(reader, onward), _pass(there, writer))
        finally:
            for one in ours:
                self._writers.discard(one)
                one.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def gate_before(url: str) -> S3Gate | None:
    """Return a gate before a bucket, None where there can be none: no bucket, or not behind plain HTTP.

    Raises
    ------
    ConfigurationError
        Raised if raws lie there already: a system of a night's own would process them too.
    StoreError
        Raised if it does not answer.
    """
    if not url:
        return None
    if not is_s3_uri(url):
        raise ConfigurationError("raws", f"{url} is no bucket, s3://bucket/prefix?endpoint_url=...")
    first = next(iter(open_products(url).list()), None)
    if first is not None:
        raise ConfigurationError("raws", f"{url} is not empty: {first} is there; give a prefix of its own")
    has_plain_http = urlsplit(parse_store_url(url).endpoint_url or "").scheme == "http"
    return S3Gate(url) if has_plain_http else None
