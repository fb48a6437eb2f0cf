"""The parent's handle on a payload child: start it, give it a job, kill it.

The child is asked by one line of JSON and answers by one; see `rapid.worker.child`.
"""

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process

from rapid.dispatch.models import Job
from rapid.errors import PayloadRetryError
from rapid.line_process import ONE_THREAD
from rapid.worker.messages import PRELOAD, ChildAnswer, ChildSettings, Preload

START_TIMEOUT_S = 300.0
"""A cold child compiles its kernels, a minute of a core; a warm one is ready in a second or two."""

ANSWER_LIMIT = 1 << 26
"""Longest answer read, 64 MiB: far above a result document, below what would exhaust the parent."""


class ChildDiedError(PayloadRetryError):
    """The payload process ended without an answer: killed, out of memory, or crashed."""

    code = "payload_died"


class PayloadChild:
    """One payload process.

    Parameters
    ----------
    settings
        What the child is told when it starts.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._process: Process | None = None
        self._answers: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Process id, None while it does not run."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process and wait until it has loaded its payloads.

        Raises
        ------
        ChildDiedError
            Raised if it ends before it is ready, or takes longer than `START_TIMEOUT_S`.
        """
        read_end, write_end = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rapid.worker.child",
                str(write_end),
                stdin=PIPE,
                pass_fds=(write_end,),
                env={**os.environ, **ONE_THREAD},
            )
        finally:
            os.close(write_end)
        self._answers = asyncio.StreamReader(limit=ANSWER_LIMIT)
        protocol = asyncio.StreamReaderProtocol(self._answers)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(read_end, "rb"))
            self._transport = transport
            await self._say(self._settings.model_dump_json())
            async with asyncio.timeout(START_TIMEOUT_S):
                answer = await self._answer()
        except asyncio.CancelledError:
            await self.kill()
            raise
        except TimeoutError:
            await self.kill()
            raise ChildDiedError(f"the payload process was not ready after {START_TIMEOUT_S:.0f} s") from None
        if not answer.ready:
            raise ChildDiedError("the payload process did not become ready")

    async def run(self, job: Job) -> ChildAnswer:
        """Give the child a job and wait for its answer.

        Raises
        ------
        ChildDiedError
            Raised if it ends without one.
        """
        async with self._turn:
            await self._say(job.model_dump_json())
            return await self._answer()

    async def preload(self, preload: Preload) -> bool:
        """Have the child take one step of a preload; return whether there is another. One that has ended takes none.

        Not to be cancelled: its answer would be taken for the next job's.
        """
        try:
            async with self._turn:
                await self._say(json.dumps({PRELOAD: preload.model_dump(mode="json")}))
                return (await self._answer()).more
        except ChildDiedError:
            return False  # the next job finds out

    async def _say(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise ChildDiedError("the payload process is not running")
        try:
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, BrokenPipeError) as error:
            raise ChildDiedError("the payload process ended") from error

    async def _answer(self) -> ChildAnswer:
        if self._answers is None or self._process is None:
            raise ChildDiedError("the payload process is not running")
        line = await self._answers.readline()
        if not line.endswith(b"\n"):
            status = await self._process.wait()
            raise ChildDiedError(f"the payload process ended with status {status}", status=status)
        return ChildAnswer.model_validate_json(line)

    async def kill(self) -> None:
        """End the process at once."""
        process, self._process = self._process, None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
