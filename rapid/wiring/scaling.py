"""Let people change, through the board, how many workers a supervisor runs: within bounds, and written down.

Beside a supervisor, not part of it: roles that are started by a pod's template are scaled by whoever made that.
"""

import contextlib
import os
import socket
import threading
from datetime import UTC, datetime

import structlog

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.errors import RapidError, StoreError
from rapid.operations.models import OrderKind, OrderState, SupervisorRecord
from rapid.operations.store import OperationsStore
from rapid.results.store import open_results
from rapid.wiring.supervisor import Supervisor

log = structlog.get_logger()

SIGN_OF_LIFE_S = 15.0
"""Between two entries in the results store; after three of them missed it is not offered any more."""

WORKERS_PER_CORE = 2
"""More only wait for each other, and each holds its calibs in memory."""


def most_workers(n_workers: int) -> int:
    """Return how many workers this machine may be told to run; never fewer than it was started with."""
    return max(n_workers, WORKERS_PER_CORE * (os.cpu_count() or 1))


class Scaler:
    """Listens for orders to a supervisor, in a thread.

    Parameters
    ----------
    supervisor
        Whose ordinary workers are scaled. It must be running.
    camera
        Name of the camera.
    max_workers
        More it will not start.
    """

    def __init__(
        self, supervisor: Supervisor, camera: str, *, max_workers: int, sign_of_life_s: float = SIGN_OF_LIFE_S
    ) -> None:
        self._supervisor = supervisor
        self._camera = camera
        self._max = max_workers
        self._every_s = sign_of_life_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scaler", daemon=True)
        host = socket.gethostname().split(".")[0]
        self._host = host
        self.name = f"{host}:{supervisor.data}"[-200:]

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; before the supervisor stops, so that nothing is started any more."""
        self._stopping.set()
        if not self._thread.is_alive():
            return
        with contextlib.suppress(RapidError), Board(self._supervisor.redis_url, self._camera, outage_s=1.0) as board:
            # Wakes the thread, which waits for events.
            board.publish(EventKind.CLUSTER_CHANGED, data={"supervisor": self.name, "state": "stopping"})
        self._thread.join(self._every_s + 5.0)

    def _run(self) -> None:
        try:
            results = open_results(self._supervisor.settings.results)
        except RapidError as error:
            log.error("workers cannot be scaled", error=error.message)
            return
        store = OperationsStore(results.engine)
        try:
            with Board(self._supervisor.redis_url, self._camera, outage_s=5.0) as board:
                self._listen(store, board)
        finally:
            with contextlib.suppress(StoreError):
                store.drop_supervisor(self._camera, self.name)
            results.close()

    def _listen(self, store: OperationsStore, board: Board) -> None:
        last_id = ""
        while not self._stopping.is_set():
            try:
                # The last id is taken before the look: no order falls between them.
                last_id = last_id or board.last_event_id()
                self._sign(store)
                self._look(store, board)
                is_told = False
                while not is_told and not self._stopping.is_set():
                    events = board.events(last_id, timeout_s=self._every_s)
                    last_id = events[-1].event_id if events else last_id
                    is_told = not events or any(event.kind is EventKind.CLUSTER_CHANGED for event in events)
            except StoreError as error:
                log.warning("orders cannot be heard", error=error.message)
                self._stopping.wait(2.0)

    def _sign(self, store: OperationsStore) -> None:
        record = SupervisorRecord(
            name=self.name,
            host=self._host,
            n_workers=self._supervisor.n_workers,
            max_workers=self._max,
            seen_at=datetime.now(UTC),
        )
        store.put_supervisor(self._camera, record)

    def _look(self, store: OperationsStore, board: Board) -> None:
        store.expire(self._camera, now=datetime.now(UTC))
        for order in store.waiting(self._camera, frozenset({OrderKind.SCALE}), target=self.name):
            before, wanted = self._supervisor.n_workers, order.value or 0
            if 1 <= wanted <= self._max:
                self._supervisor.scale(wanted)
                state, outcome = OrderState.DONE, f"{before} before, {wanted} now"
            else:
                state, outcome = OrderState.FAILED, f"between 1 and {self._max} workers can run here"
            log.info("workers scaled", before=before, wanted=wanted, by=order.author, outcome=outcome)
            store.end(order.id, state, outcome, now=datetime.now(UTC))
            self._sign(store)
            board.publish(EventKind.CLUSTER_CHANGED, data={"order": order.id, "kind": "scale", "state": state.value})
