"""Carry out orders to the cluster, as the leading head: restart workers, queue dead letters again, drop them.

Orders wait in the results store; the board's stream of events says when to look. Every one ends as done or failed, with
a sentence on what came of it; those that waited while nobody led have expired instead of happening late.
"""

import asyncio
from datetime import UTC, datetime

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import EventKind
from rapid.dispatch.restart import order_restart
from rapid.errors import RapidError, StoreError
from rapid.operations.models import ClusterOrder, OrderKind, OrderState
from rapid.operations.store import OperationsStore
from rapid.results.store import ResultsStore

log = structlog.get_logger()

LOOK_AGAIN_S = 20.0
"""An order whose event was lost is found after this; it expires only after three times as long."""

OURS = frozenset({OrderKind.RESTART_WORKERS, OrderKind.RESTART_WORKER, OrderKind.RETRY, OrderKind.DISCARD})
"""What a head can do. Scaling is for whoever starts workers."""


class OrderDesk:
    """Takes orders and carries them out.

    Parameters
    ----------
    look_again_s
        How long to wait for an event before looking all the same.
    """

    def __init__(
        self, camera: Camera, board: AsyncBoard, results: ResultsStore, *, look_again_s: float = LOOK_AGAIN_S
    ) -> None:
        self._camera = camera.name
        self._board = board
        self._results = results
        self._store = OperationsStore(results.engine)
        self._look_again_s = look_again_s

    async def run(self) -> None:
        """Carry out orders until cancelled."""
        # The last id is taken first: an order given between it and the look is seen twice and carried out once.
        last_id = await self._board.last_event_id()
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.error("orders cannot be read", error=error.message)
            is_told = False
            while not is_told:
                events = await self._board.events(last_id, timeout_s=self._look_again_s)
                last_id = events[-1].event_id if events else last_id
                is_told = not events or any(_tells_of_an_order(event.kind, event.data) for event in events)

    async def look(self) -> int:
        """Carry out the orders that wait; returns how many."""
        await asyncio.to_thread(lambda: self._store.expire(self._camera, now=datetime.now(UTC)))
        waiting = await asyncio.to_thread(self._store.waiting, self._camera, OURS)
        for order in waiting:
            try:
                outcome = await self._carry_out(order)
                state = OrderState.DONE
            except StoreError:
                raise  # it goes on waiting, and is tried again or expires
            except RapidError as error:
                outcome, state = error.message, OrderState.FAILED
            log.info("order", kind=order.kind.value, target=order.target, by=order.author, outcome=outcome)
            await self._end(order, state, outcome)
        return len(waiting)

    async def _carry_out(self, order: ClusterOrder) -> str:
        board, target = self._board, order.target
        if order.kind is OrderKind.RESTART_WORKERS:
            n_told = await board.connection.run(order_restart(board.prefix, target))
            if not n_told:
                raise RapidError(f"no worker serves {target or 'any pool'}")
            return f"{n_told} worker{'' if n_told == 1 else 's'} told"
        if order.kind is OrderKind.RESTART_WORKER:
            if not await board.connection.run(order_restart(board.prefix, worker_id=target)):
                raise RapidError(f"{target} is not there any more")
            return "told"
        if order.kind is OrderKind.RETRY:
            await board.retry_dead_letter(target)
            return "queued again"
        if not await board.discard_dead_letter(target):
            raise RapidError(f"{target} is no dead letter any more")
        await asyncio.to_thread(self._results.forget_failure, target)
        return "dropped"

    async def _end(self, order: ClusterOrder, state: OrderState, outcome: str) -> None:
        await asyncio.to_thread(lambda: self._store.end(order.id, state, outcome, now=datetime.now(UTC)))
        data = {"order": order.id, "kind": order.kind.value, "state": state.value}
        await self._board.publish(EventKind.CLUSTER_CHANGED, data=data)


def _tells_of_an_order(kind: EventKind, data: dict[str, object]) -> bool:
    return kind is EventKind.CLUSTER_CHANGED and data.get("state") == OrderState.WAITING.value
