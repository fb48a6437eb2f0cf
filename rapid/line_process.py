"""A program of our own that is asked by a line and answers by a line: for work that must not hold up, or end, a role.

Both sides of it: `LineProcess` asks, `answer_lines` is the program's loop. What the lines say is left to them. That nobody
is given the answer to another's question is held here: a process that did not answer, or whose answer is no longer waited
for, is ended.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable

from rapid.errors import RapidError, Retry

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""Environment of a process that computes: cores are shared by many processes, not fought for by the threads of one."""

LINE_LIMIT = 1 << 20
"""Longest answer read, 1 MiB: names and numbers; pixels go through files."""


class NoAnswerError(RapidError):
    """A process did not answer: it died, or took longer than it may. It has been ended; the next question starts another."""

    code = "no_answer"
    retry = Retry.LATER


class LineProcess:
    """One process, started when it is first asked something. One question at a time.

    Parameters
    ----------
    module
        What ``python -m`` runs: it reads lines from its standard input, answers each by one line, and ends with the input.
    answer_s
        A question that takes longer [s] is given up.
    """

    def __init__(self, module: str, *, answer_s: float) -> None:
        self._module = module
        self._answer_s = answer_s
        self._process: asyncio.subprocess.Process | None = None

    async def ask(self, line: str) -> bytes:
        """Ask, and return the answer's line.

        Raises
        ------
        NoAnswerError
            Raised if none came in time, or the process ended without one.
        """
        try:
            process = await self._running()
            assert process.stdin is not None  # noqa: S101 - both are pipes
            assert process.stdout is not None  # noqa: S101
            process.stdin.write(line.encode() + b"\n")
            async with asyncio.timeout(self._answer_s):
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except TimeoutError:
            await self.end()
            raise NoAnswerError(f"it took longer than {self._answer_s:g} s") from None
        except (OSError, ValueError) as error:  # a pipe that broke; a line beyond the limit
            await self.end()
            raise NoAnswerError(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            await self.end()  # its answer would be taken for that of the next question
            raise
        if not answer.endswith(b"\n"):
            status = await process.wait()
            await self.end()
            raise NoAnswerError(f"the process ended with status {status}", status=status)
        return answer

    async def end(self) -> None:
        """End the process at once, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **ONE_THREAD},
                limit=LINE_LIMIT,
            )
        return self._process


def answer_lines(answer: Callable[[str], str], *, niceness: int) -> None:
    """Answer every line of the standard input, until it ends: with the process that asks.

    What libraries print goes to the log, not among the answers.

    Parameters
    ----------
    answer
        Given a line, returns one. It raises nothing: what goes wrong with one question is said in its answer.
    niceness
        Added to the process's own: who computes in the background waits for those that an exposure waits for.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.nice(niceness)
    try:
        for line in sys.stdin:
            answers.write(answer(line) + "\n")
            answers.flush()
    except BrokenPipeError:
        return  # nobody is left to tell
