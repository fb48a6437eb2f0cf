"""Hear what a worker is told, busy or not: give up a backlog job, start the payload processes anew.

One wait on one connection for as long as the worker lives. A wait begun and given up with every backlog job would close
its connection each time: a pop on its way when the wait ends cannot be taken back. An order therefore names its job, and
is kept until that job is asked for: it may be heard before the job's own claim is answered, and one for a job that has
ended means nothing.
"""

import asyncio
from collections import deque

import structlog

from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import Job, Order
from rapid.errors import RapidError
from rapid.pause import pause

log = structlog.get_logger()

WAIT_S = 60.0
"""How long one wait lasts; an order ends it at once."""

RETRY_S = 1.0
"""After the board did not answer: its connection has tried for the whole of its outage time already."""

KEPT = 16
"""Orders to give up a job that are remembered; a worker has one job of the backlog at a time."""


class OrderWatch:
    """What one worker was told.

    Attributes
    ----------
    restart : asyncio.Event
        Set when the payload processes are to start anew; cleared by whoever does it.
    """

    def __init__(self, board: AsyncBoard, worker_id: str) -> None:
        self._board = board
        self._worker_id = worker_id
        self._given_up: deque[tuple[str, int]] = deque(maxlen=KEPT)
        self._news = asyncio.Event()
        self.restart = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled; goes on when a server that was away is back."""
        while True:
            try:
                order = await self._board.wait_for_order(self._worker_id, timeout_s=WAIT_S)
            except RapidError as error:
                log.warning("orders cannot be heard", error=error.message)
                await pause(RETRY_S)
                continue
            if order is None:
                continue
            if order.order is Order.RESTART:
                self.restart.set()
            else:
                self._note(order.job_id, order.token)

    def preempt(self, job: Job) -> None:
        """Tell that a job is to be given up: the answer to a heartbeat says so too, should an order have been lost."""
        self._note(job.job_id, job.token)

    async def wait_for_preemption(self, job: Job) -> None:
        """Wait until a job is to be given up."""
        while (job.job_id, job.token) not in self._given_up:
            self._news.clear()
            await self._news.wait()

    def _note(self, job_id: str, token: int) -> None:
        if (job_id, token) not in self._given_up:
            self._given_up.append((job_id, token))
        self._news.set()
