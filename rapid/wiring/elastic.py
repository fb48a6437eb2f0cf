"""Run the controller that sizes worker groups."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import yaml
from pydantic import TypeAdapter, ValidationError

from rapid.cluster.api import Cluster
from rapid.cluster.elastic import Controller, SizePolicy, Sizer
from rapid.cluster.facts import facts_of
from rapid.dispatch.board import Board
from rapid.errors import ConfigurationError
from rapid.wiring.health import Health, serve_health

log = structlog.get_logger()

START_S = 10.0


def default_policies() -> list[SizePolicy]:
    """Return the policies for the groups of k8s/base."""
    return [
        SizePolicy(group="rapid-worker-backlog", pools=("science", "build"), least=1, most=50),
        SizePolicy(group="rapid-worker-wavefront", pools=("wavefront",), least=2, most=32, drain_s=300.0),
    ]


def read_policies(path: Path) -> list[SizePolicy]:
    """Read policies from a YAML list.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a file that is none.
    """
    try:
        return TypeAdapter(list[SizePolicy]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError("policy", f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(".".join(map(str, first["loc"])) or "policy", f"{first['msg']} ({path})") from error


def run_elastic(
    cluster: Cluster,
    board: Board,
    policies: list[SizePolicy],
    *,
    interval_s: float,
    is_dry: bool,
    once: bool,
    stop: threading.Event,
    tell: Callable[[str], None],
    metrics_port: int = 0,
) -> None:
    """Decide again and again until told to stop; what cannot be asked or set leaves sizes as they are.

    Raises
    ------
    RapidError
        Raised for an answer that does not come, but only if it was to decide once.
    """
    controller = Controller(
        [Sizer(policy) for policy in policies],
        ask=lambda policy: facts_of(board, policy),
        read_size=cluster.size,
        set_size=cluster.scale,
        is_dry=is_dry,
    )
    with _health(board, metrics_port):
        _decide(controller, interval_s=interval_s, once=once, stop=stop, tell=tell)


def _decide(
    controller: Controller, *, interval_s: float, once: bool, stop: threading.Event, tell: Callable[[str], None]
) -> None:
    while True:
        decisions, faults = controller.step()
        for decision in decisions:
            change = f"{decision.now} -> {decision.size}" if decision.is_change else f"stays at {decision.now}"
            dry = " (dry run)" if controller.is_dry and decision.is_change else ""
            tell(f"{decision.group}: {change}{dry}: {decision.why}")
        if once and faults:
            raise faults[0]
        for fault in faults:
            log.warning("a size stays as it is", error=fault.message)
        if once or stop.wait(interval_s):
            return


@contextmanager
def _health(board: Board, port: int) -> Iterator[None]:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` from a thread of their own, if there is a port for them."""
    if not port:
        yield
        return
    serving: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
    listening = threading.Event()

    async def serve() -> None:
        async def check() -> None:
            await asyncio.to_thread(board.ping)

        ready = asyncio.Event()
        ready.set()
        task = asyncio.create_task(serve_health(Health(check, ready), port=port))
        serving.append((asyncio.get_running_loop(), task))
        listening.set()
        await asyncio.gather(task, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="health", daemon=True)
    thread.start()
    listening.wait(START_S)
    try:
        yield
    finally:
        loop, task = serving[0]
        loop.call_soon_threadsafe(task.cancel)
        thread.join(START_S)
