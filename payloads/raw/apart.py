"""Decode what our decoder leaves to astropy, in a process of its own.

Compressed images that are no Rice tiles of whole rows (HCOMPRESS, PLIO, gzip, quantised floats) are decoded by C code
that trusts its input: a damaged stream can write where it should not, and end the process. Here that ends a process
which holds nothing but this image, and the raw is said to be damaged. The process is kept for the next image.
"""

import atexit
import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rapid.errors import CorruptRawError

TIMEOUT_S = 60.0
"""A segment takes less than a second; starting the process on a machine that is busy may take ten."""
WORD = 8
"""Bytes of the number that says how long what follows is."""
MAX_MEMORY = 8 << 30
"""Address space of the process [bytes]: headers may ask for any size."""


class DecoderApart:
    """A process that decodes, begun when it is first needed and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def decode(self, data: bytes, *, timeout_s: float = TIMEOUT_S) -> NDArray[Any]:
        """Return the pixels of a file's first extension.

        Parameters
        ----------
        data
            A FITS file of a primary HDU without data, and one extension.
        timeout_s
            How long it may take; then the process is ended.

        Returns
        -------
        pixels : ndarray
            Of the shape and dtype that astropy gives, in native byte order.

        Raises
        ------
        CorruptRawError
            Raised with astropy's words, or with how the process ended.
        """
        with self._lock:
            process = self._running()
            if process.stdin is None or process.stdout is None:
                raise CorruptRawError("the decoding process has no pipes")
            overdue = threading.Event()

            def end() -> None:
                overdue.set()
                process.kill()

            timer = threading.Timer(timeout_s, end)
            timer.start()
            try:
                process.stdin.write(len(data).to_bytes(WORD, "little") + data)
                process.stdin.flush()
                answer = json.loads(_read_block(process.stdout))
                content = _read_block(process.stdout)
            except (OSError, EOFError) as error:
                self.close()
                why = f"not decoded within {timeout_s:g} s" if overdue.is_set() else f"decoder ended ({error})"
                raise CorruptRawError(f"{why}: the compressed stream is damaged") from error
            finally:
                timer.cancel()
        if "error" in answer:
            raise CorruptRawError(answer["error"])
        return np.frombuffer(bytearray(content), dtype=answer["dtype"]).reshape(answer["shape"])

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process; a new one if there is none, it ended, or it is that of the process we were forked from."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        if self._owner == os.getpid():
            self.close()
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "payloads.raw.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process

    def close(self) -> None:
        """End the process, if it is ours."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def _read_block(stream: Any) -> bytes:
    """Return the next block, its length read first; raise EOFError where the stream ends before."""
    size = stream.read(WORD)
    if len(size) < WORD:
        raise EOFError("no answer")
    n = int.from_bytes(size, "little")
    block: bytes = stream.read(n)
    if len(block) < n:
        raise EOFError("half an answer")
    return block


def _decode(data: bytes) -> NDArray[Any]:
    from astropy.io import fits

    with fits.open(io.BytesIO(data), memmap=False) as hdus:
        pixels = np.asarray(hdus[1].data)
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"no pixels, but {pixels.dtype}")
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def answer_requests(requests: BinaryIO, answers: BinaryIO) -> None:
    """Decode one file after the other until there are no more."""
    while True:
        try:
            data = _read_block(requests)
        except EOFError:
            return
        content = b""
        try:
            pixels = _decode(data)
            answer = {"dtype": pixels.dtype.str, "shape": pixels.shape}
            content = pixels.tobytes()
        except Exception as error:  # noqa: BLE001 - whatever a hostile file makes astropy raise is told to the caller
            answer = {"error": str(error) or type(error).__name__}
        words = json.dumps(answer).encode()
        answers.write(len(words).to_bytes(WORD, "little") + words + len(content).to_bytes(WORD, "little") + content)
        answers.flush()


def main() -> None:
    """Serve standard input and output; what C code prints goes nowhere."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer_requests(sys.stdin.buffer, answers)


decoder = DecoderApart()
"""The process of this one; its images are few."""
atexit.register(decoder.close)

if __name__ == "__main__":
    main()
