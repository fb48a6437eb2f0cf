"""Compare two runs in a process of its own: `rapid campaign compare`, as by hand.

A night of a large camera is millions of numbers: read in the display's own process they would stop its pages for minutes,
and stay in its memory. The child is ended when it takes too long.
"""

import asyncio
import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import structlog
from pydantic import ValidationError

from rapid.access import BadRequestError
from rapid.display.campaigns.models import RunComparison
from rapid.errors import StoreError

log = structlog.get_logger()

DIFFERENT = 1
"""Status of a comparison that found something; one that could not be made ends with it too, and prints nothing."""

MAX_WAITING = 8
MAX_PAGES = 4
"""Pages with plots that are remembered, for whoever looks at them after the numbers; a megabyte each at the most."""

Question = tuple[str, str, tuple[int, ...], float]
"""Which runs, of which nights, and what is allowed."""


class RunComparer:
    """Compares runs, one comparison after the other.

    Parameters
    ----------
    limit_s
        A comparison that takes longer is given up.
    """

    def __init__(self, camera: str, results_url: str, *, limit_s: float) -> None:
        self._camera = camera
        self._results_url = results_url
        self._limit_s = limit_s
        self._turn = asyncio.Lock()
        self._n_waiting = 0
        self._pages: OrderedDict[Question, str] = OrderedDict()

    async def page(self, before: str, after: str, *, nights: Sequence[int], rel: float) -> str:
        """Return what differs as an HTML page with plots: of the last comparison of the two, if it is remembered.

        Raises
        ------
        BadRequestError, StoreError
            Raised as by `compare`.
        """
        question = (before, after, tuple(nights), rel)
        if question not in self._pages:
            await self.compare(before, after, nights=nights, rel=rel)
        return self._pages[question]

    async def compare(self, before: str, after: str, *, nights: Sequence[int], rel: float) -> RunComparison:
        """Return what differs, looked at anew.

        Raises
        ------
        BadRequestError
            Raised if there is nothing to compare, saying what is missing.
        StoreError
            Raised if it took too long, or too many are waiting for theirs.
        """
        if self._n_waiting >= MAX_WAITING:
            raise StoreError(f"{MAX_WAITING} comparisons are being made; ask again")
        self._n_waiting += 1
        try:
            async with self._turn:
                with tempfile.TemporaryDirectory(prefix="rapid-compare-") as folder:
                    page = Path(folder) / "compare.html"
                    output = await self._run(before, after, nights, rel, page)
                    try:
                        found = RunComparison.model_validate_json(output)
                        self._keep((before, after, tuple(nights), rel), page.read_text(encoding="utf-8"))
                    except (ValidationError, OSError) as error:
                        log.error("comparison cannot be read", error=str(error))
                        raise StoreError("the comparison failed; the display's log says why") from error
                    return found
        finally:
            self._n_waiting -= 1

    def _keep(self, question: Question, text: str) -> None:
        self._pages[question] = text
        self._pages.move_to_end(question)
        while len(self._pages) > MAX_PAGES:
            self._pages.popitem(last=False)

    async def _run(self, before: str, after: str, nights: Sequence[int], rel: float, page: Path) -> bytes:
        words = ["--json", "--html", str(page), "--camera", self._camera]
        words += [word for night in nights for word in ("--night", str(night))]
        words += ["--rel", repr(rel)]
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rapid", "campaign", "compare", *words, "--", before, after,
            env={**os.environ, "RAPID_RESULTS_URL": self._results_url},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._limit_s):
                output, complaint = await child.communicate()
        except TimeoutError as error:
            raise StoreError(f"the comparison took more than {self._limit_s:g} s: name fewer nights") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode in {0, DIFFERENT} and output.strip():
            return output
        lines = complaint.decode(errors="replace").strip().splitlines()
        reason = next((line.removeprefix("rapid: ") for line in reversed(lines) if line.startswith("rapid: ")), None)
        if reason is None:
            log.error("comparison failed", status=child.returncode, complaint=lines[-20:])
            raise StoreError("the comparison failed; the display's log says why")
        field, colon, rest = reason.partition(": ")
        if colon and field in {"run", "night"}:
            raise BadRequestError(field, rest)
        raise StoreError(reason)
