"""The cluster over HTTP: everybody may look; orders need a token, and are carried out by head or supervisor."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from rapid.access import CHANGE_ERRORS, Access, BadRequestError, Principal
from rapid.dispatch.models import EventKind
from rapid.dispatch.worker_facts import read_worker_facts
from rapid.display.api import ERRORS
from rapid.display.cluster.assemble import cluster_view
from rapid.display.cluster.latencies import Latencies
from rapid.display.cluster.models import ClusterView
from rapid.display.hub import Hub, Message
from rapid.display.reader import Reader
from rapid.errors import NotFoundError, StoreError
from rapid.operations.models import ClusterOrder, OrderError, OrderKind, OrderSpec, check_order
from rapid.operations.store import OperationsStore
from rapid.publish.store import get_status

N_LETTERS = 100
N_ORDERS = 30
EVENTS_AT_ONCE = 500
N_READS = 60
"""Reads of the event stream in one answer: 30 000 events are more than it keeps."""

CHANGES: dict[int | str, dict[str, Any]] = {**CHANGE_ERRORS}


def cluster_routes(access: Access, store: OperationsStore, reader: Reader, hub: Hub) -> APIRouter:
    """Return the routes below ``/api/cluster``."""
    router = APIRouter(tags=["system"], responses=ERRORS)
    camera = reader.camera
    latencies, reading = Latencies(), asyncio.Lock()

    async def catch_up() -> None:
        async with reading:
            for _ in range(N_READS):
                events = await reader.ask_board(
                    reader.board.events(latencies.last_id, timeout_s=0.0, limit=EVENTS_AT_ONCE)
                )
                if not events:
                    return
                latencies.take(events)

    @router.get("/api/cluster", summary="Workers, queues, latencies, dead letters, orders")
    async def cluster() -> ClusterView:
        """Return the cluster at this moment."""
        now = datetime.now(UTC)
        await catch_up()
        status = await reader.ask_board(reader.board.status())
        facts = await reader.ask_board(reader.board.connection.run(read_worker_facts(reader.board.prefix)))
        letters = await reader.ask_board(reader.board.dead_letters(N_LETTERS))
        publish = await reader.ask_board(reader.board.connection.run(get_status(reader.board.prefix)))
        supervisors = await reader.ask_results(lambda: store.supervisors(camera.name, now=now))
        orders = await reader.ask_results(lambda: store.recent(camera.name, limit=N_ORDERS))
        return cluster_view(
            camera,
            status,
            facts,
            letters,
            latencies=latencies.spreads(),
            supervisors=supervisors,
            orders=orders,
            viewers=hub.n_viewers,
            publish=publish,
        )

    @router.get("/api/cluster/orders", summary="What was ordered, newest first")
    async def orders(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[ClusterOrder]:
        """Return the log of orders: who, what, why, and what came of it."""
        return await reader.ask_results(lambda: store.recent(camera.name, limit=limit))

    @router.post("/api/cluster/orders", status_code=202, summary="Restart, scale, retry, discard", responses=CHANGES)
    async def order(spec: OrderSpec, who: Annotated[Principal, Depends(access.may_change)]) -> ClusterOrder:
        """Write an order down. The leading head, or the supervisor, carries it out and says what came of it."""
        now = datetime.now(UTC)
        await check(spec, now)
        given = await asyncio.to_thread(lambda: store.add(camera.name, spec, author=who.name, now=now))
        data = {"order": given.id, "kind": given.kind.value, "state": given.state.value}
        try:
            await reader.ask_board(reader.board.publish(EventKind.CLUSTER_CHANGED, data=data))
        except StoreError:
            hub.publish(Message.make("cluster", data))
        return given

    async def check(spec: OrderSpec, now: datetime) -> None:
        """Refuse at once what nobody could carry out."""
        try:
            check_order(spec)
        except OrderError as error:
            raise BadRequestError(error.field, error.reason) from error
        if spec.kind in {OrderKind.RETRY, OrderKind.DISCARD}:
            letters = await reader.ask_board(reader.board.dead_letters(5000))
            if not any(letter.job_id == spec.target for letter in letters):
                raise NotFoundError("dead letter", spec.target)
        elif spec.kind is OrderKind.RESTART_WORKER:
            workers = (await reader.ask_board(reader.board.status())).workers
            if not any(worker.worker_id == spec.target for worker in workers):
                raise NotFoundError("worker", spec.target)
        elif spec.kind is OrderKind.SCALE:
            supervisors = await reader.ask_results(lambda: store.supervisors(camera.name, now=now))
            found = next((one for one in supervisors if one.name == spec.target), None)
            if found is None:
                raise NotFoundError("supervisor", spec.target)
            if (spec.value or 0) > found.max_workers:
                raise BadRequestError("value", f"{found.name} starts at most {found.max_workers} workers")

    return router
