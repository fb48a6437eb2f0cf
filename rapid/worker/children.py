"""The payload processes of one worker: the one at work, in mode preempting a warm spare, and those that end.

Which of them runs what, and when one must go, is the worker's affair; here they are started, replaced and ended, so that
none outlives its worker and no job waits for the end of one that is done with.
"""

import asyncio

import structlog

from rapid.worker.messages import ChildSettings
from rapid.worker.process import ChildDiedError, PayloadChild

log = structlog.get_logger()


class PayloadChildren:
    """The payload processes of one worker.

    Parameters
    ----------
    settings
        What each is told when it starts.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._child: PayloadChild | None = None
        self._spare: PayloadChild | None = None
        self._starting: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()

    @property
    def at_work(self) -> PayloadChild | None:
        """The one that has the next job, None while there is none."""
        return self._child

    async def ready(self) -> PayloadChild:
        """Return one that is ready: the one at work, the spare, or a new one.

        Raises
        ------
        ChildDiedError
            Raised if a new one does not become ready.
        """
        if self._child is None and self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._child is None and self._spare is not None:
            self._child, self._spare = self._spare, None
        if self._child is None:
            child = PayloadChild(self._settings)
            await child.start()
            self._child = child
        return self._child

    def keep_spare(self, *, is_wanted: bool) -> None:
        """Begin to keep a warm spare, or let it go. Never waits."""
        if not is_wanted:
            spare, self._spare = self._spare, None
            self._let_go(spare)
        elif self._spare is None and (self._starting is None or self._starting.done()):
            self._starting = asyncio.create_task(self._start_spare())

    def retire(self) -> None:
        """End the one at work, without waiting until the system has taken its memory back."""
        child, self._child = self._child, None
        self._let_go(child)

    async def drop(self) -> None:
        """End the one at work."""
        child, self._child = self._child, None
        if child is not None:
            await child.kill()

    async def start_anew(self) -> None:
        """Replace them by fresh ones; one that cannot be started is tried again by the next job, which then fails."""
        await self.drop()
        await self._drop_spare()
        try:
            child = await self.ready()
        except ChildDiedError as error:
            log.error("payload process cannot be started", error=error.message)
        else:
            log.info("payload process started anew", child_pid=child.pid)

    async def end(self) -> None:
        """End them all."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self.drop()
        await self._drop_spare()
        await asyncio.gather(*self._retired, return_exceptions=True)

    async def _start_spare(self) -> None:
        spare = PayloadChild(self._settings)
        try:
            await spare.start()
        except ChildDiedError as error:
            log.warning("no spare child", error=error.message)
            return
        self._spare = spare
        log.info("spare child ready", child_pid=spare.pid)

    async def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.kill()

    def _let_go(self, child: PayloadChild | None) -> None:
        if child is not None:
            ending = asyncio.create_task(child.kill())
            self._retired.add(ending)
            ending.add_done_callback(self._retired.discard)
