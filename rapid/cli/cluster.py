"""`rapid cluster`: the roles as pods. Look, size, restart, drain, roll out, plan."""

import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Redis
from rapid.errors import ConfigurationError, RapidError

CLI_OUTAGE_S = 3.0

Namespace = Annotated[str, typer.Option(help="Namespace of the pods; the pod's own or the kubeconfig's if left out.")]
Context = Annotated[str, typer.Option(help="Context of the kubeconfig.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Timeout = Annotated[float, typer.Option(help="Give up after this [s].", min=1)]

cluster_app = typer.Typer(help="The roles as pods on Kubernetes.", no_args_is_help=True)


def _cluster(namespace: str, context: str) -> Any:
    from rapid.cluster.api import Cluster, connect, own_namespace

    return Cluster(namespace or own_namespace(context), connect(context))


def _board(camera: str | None, redis: str | None) -> Any:
    from rapid.dispatch.board import Board
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, redis_url=redis)
    return Board(settings.redis_url, adopt_camera(settings.camera).name, outage_s=CLI_OUTAGE_S)


def _camera(name: str | None) -> Any:
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    return adopt_camera(make_settings(camera=name).camera)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _group(cluster: Any, name: str) -> Any:
    """Return a StatefulSet by its name, or by what follows ``rapid-worker-`` in it."""
    known = {group.name: group for group in cluster.groups()}
    for candidate in (name, f"rapid-worker-{name}", f"rapid-{name}"):
        if candidate in known:
            return known[candidate]
    raise ConfigurationError("group", f"no {name}; there are {', '.join(sorted(known)) or 'none'}")


@cluster_app.command()
def status(
    camera: CameraName = None,
    redis: Redis = None,
    namespace: Namespace = "",
    context: Context = "",
    as_json: Json = False,
) -> None:
    """Show groups and pods beside what the board knows of the workers in them.

    Example: rapid cluster status --camera LSSTCam --redis redis://rapid-valkey:6379/0

    Ends with status 1 if something is wrong: pods not ready, workers the board does not hear, detectors without one.
    """
    from rapid.cluster.status import join_status
    from rapid.patterns.pattern import parse_pattern

    cluster, instrument = _cluster(namespace, context), _camera(camera)
    board, fault = None, ""
    try:
        board = _board(camera, redis).status()
    except RapidError as error:
        fault = error.message
    found = join_status(
        cluster.namespace,
        instrument.name,
        cluster.groups(),
        cluster.pods(),
        board,
        parse_pattern("all").detectors(instrument),
        board_error=fault,
    )
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        names = {detector.id: detector.name for detector in instrument.detectors}
        print("\n".join(_status_text(found, names)))
    if fault or found.unowned or any(row.is_odd for row in found.pods):
        raise typer.Exit(1)


def _status_text(found: Any, names: dict[int, str]) -> list[str]:
    lines = [f"{'group':28} {'ready':>9} {'new':>4}  image"]
    lines += [
        f"{group.name:28} {group.ready:>4}/{group.wanted:<4} {group.updated:>4}  {group.image}"
        for group in found.groups
    ]
    lines += ["", f"{'pod':32} {'phase':9} {'ready':5} {'restarts':>8}  {'worker':8} {'heard':>6}  detectors, job"]
    for row in found.pods:
        heard = "" if row.heartbeat_age_s is None else f"{row.heartbeat_age_s:.1f} s"
        owns = ",".join(names.get(number, str(number)) for number in row.pinned[:4])
        rest = " ".join(filter(None, [owns, *row.jobs[:1], row.pod.reason, "leaving" if row.pod.is_leaving else ""]))
        ready = "yes" if row.pod.is_ready else "NO"
        state = row.worker_state or ("UNKNOWN" if row.pod.component == "worker" else "")
        lines.append(
            f"{row.pod.name:32} {row.pod.phase:9} {ready:5} {row.pod.restarts:>8}  {state:8} {heard:>6}  {rest}".rstrip()
        )
    if found.strangers:
        lines.append(f"workers on the board without a pod here: {', '.join(found.strangers)}")
    if found.unowned:
        lines.append(f"detectors without a worker: {', '.join(names.get(n, str(n)) for n in found.unowned)}")
    if found.board_error:
        lines.append(f"the board could not be asked: {found.board_error}")
    return lines


@cluster_app.command()
def scale(
    group: Annotated[str, typer.Argument(help="science, backlog, wavefront, or a StatefulSet's name.")],
    replicas: Annotated[int, typer.Argument(min=0, help="Pods it should have.")],
    namespace: Namespace = "",
    context: Context = "",
    timeout: Timeout = 300.0,
) -> None:
    """Set how many workers a group has, and wait until they are there.

    Example: rapid cluster scale backlog 12
    """
    from rapid.cluster.rollout import wait_until_settled

    cluster = _cluster(namespace, context)
    found = _group(cluster, group)
    _refuse_if_not_a_set(found)
    share = found.pinned.partition(" ")[0]
    if share.startswith("ordinal/") and share != f"ordinal/{replicas}":
        _tell(
            f"{found.name} is pinned by {found.pinned}: detectors are not shared out anew among {replicas} pods; set replicas "
            "and RAPID_PINNED together in the overlay for that"
        )
    cluster.scale(found.name, replicas)
    wait_until_settled(cluster, found.name, timeout_s=timeout)
    print(f"{found.name}: {found.wanted} -> {replicas}")


@cluster_app.command()
def restart(
    group: Annotated[str, typer.Argument(help="science, backlog, wavefront, or a StatefulSet's name.")],
    namespace: Namespace = "",
    context: Context = "",
    timeout: Timeout = 1800.0,
) -> None:
    """Replace a group's pods, a few at a time; each finishes its job first, or gives it back.

    Example: rapid cluster restart science
    """
    from rapid.cluster.rollout import restart as restart_group

    cluster = _cluster(namespace, context)
    found = _group(cluster, group)
    _refuse_if_not_a_set(found)
    restart_group(cluster, found.name, stamp=datetime.now(UTC).isoformat(timespec="seconds"), timeout_s=timeout)
    print(f"{found.name}: {found.wanted} pods restarted")


@cluster_app.command()
def drain(
    pods: Annotated[list[str] | None, typer.Argument(help="Pods to drain.")] = None,
    node: Annotated[str, typer.Option(help="All our pods of this node instead.")] = "",
    namespace: Namespace = "",
    context: Context = "",
    timeout: Timeout = 300.0,
) -> None:
    """Ask pods to leave, as their disruption budgets allow; each finishes its job first, or gives it back.

    Example: rapid cluster drain --node summit-node-7

    A node that is to stay empty has to be cordoned before (kubectl cordon): else pods come back to it.
    """
    from rapid.cluster.rollout import drain as drain_pods

    if bool(pods) == bool(node):
        raise ConfigurationError("pods", "name pods, or one node with --node")
    cluster = _cluster(namespace, context)
    known = cluster.pods()
    chosen = (
        [pod for pod in known if pod.node == node] if node else [pod for pod in known if pod.name in set(pods or ())]
    )
    missing = set(pods or ()) - {pod.name for pod in chosen}
    if missing or not chosen:
        raise ConfigurationError("pods", f"no pod of ours: {', '.join(sorted(missing)) or f'on node {node}'}")
    drain_pods(cluster, chosen, timeout_s=timeout, tell=_tell)
    print(f"{len(chosen)} pods drained")


@cluster_app.command()
def rollout(
    group: Annotated[str, typer.Argument(help="science, backlog, wavefront, or a StatefulSet's name.")],
    image: Annotated[str, typer.Argument(help="Image of the new version.")],
    camera: CameraName = None,
    redis: Redis = None,
    exposures: Annotated[int, typer.Option(min=0, help="Compare over so many exposures; 0 compares nothing.")] = 5,
    watch: Annotated[float, typer.Option(min=1, help="Wait so long for them [s].")] = 900.0,
    namespace: Namespace = "",
    context: Context = "",
    timeout: Timeout = 1800.0,
) -> None:
    """Give a group a new version: one raft tries it first; if it does as well as before, the rest follow, else it goes back.

    Example: rapid cluster rollout science ghcr.io/rapid-analysis/rapid:0.2.0 --exposures 5

    Run time, failures and what the pictures measure are compared with the same detectors before and the others now.
    """
    from rapid.cluster.observe import observe_exposures, recent_exposures
    from rapid.cluster.rollout import canary_of, roll_out
    from rapid.results.store import open_results
    from rapid.wiring.settings import make_settings

    if not image.strip() or any(character.isspace() for character in image):
        raise ConfigurationError("image", f"{image!r} names no image")
    cluster, instrument = _cluster(namespace, context), _camera(camera)
    found = _group(cluster, group)
    _refuse_if_not_a_set(found)
    if found.image == image:
        raise ConfigurationError(
            "image", f"{found.name} has {image} already; rapid cluster restart {group} starts it anew"
        )
    canary = canary_of(found, instrument)
    board = _board(camera, redis)
    results = open_results(make_settings(camera=camera, redis_url=redis).results)
    before = recent_exposures(results, instrument.name, max(2 * exposures, 6))

    def observe(detectors: frozenset[int]) -> Any:
        if not exposures:
            return None
        return observe_exposures(
            board, results, instrument.name, before, detectors, n_exposures=exposures, timeout_s=watch, tell=_tell
        )

    done = roll_out(cluster, found, image, canary, observe, timeout_s=timeout, tell=_tell)
    if not done.is_done:
        print(f"{found.name}: stays with {found.image}: {done.reason}")
        raise typer.Exit(1)
    print(f"{found.name}: {found.image} -> {image}")


@cluster_app.command()
def elastic(
    policy: Annotated[Path | None, typer.Option(help="YAML list of size policies; a built-in one if left out.")] = None,
    camera: CameraName = None,
    redis: Redis = None,
    interval: Annotated[float, typer.Option(min=1, help="Between two decisions [s].")] = 15.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and explain, change nothing.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Decide once and end.")] = False,
    namespace: Namespace = "",
    context: Context = "",
) -> None:
    """Keep worker groups as large as the work wants: predicted finish against cadence, size of the backlog.

    Example: rapid cluster elastic --dry-run --once

    Every decision is explained. While board or API are away nothing is changed.
    """
    from rapid.wiring.elastic import default_policies, read_policies, run_elastic
    from rapid.wiring.settings import make_settings

    policies = read_policies(policy) if policy else default_policies()
    stop = threading.Event()
    if not once:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
    run_elastic(
        _cluster(namespace, context),
        _board(camera, redis),
        policies,
        interval_s=interval,
        is_dry=dry_run,
        once=once,
        stop=stop,
        tell=print,
        metrics_port=0 if once else make_settings(camera=camera, redis_url=redis).metrics_port,
    )


@cluster_app.command()
def plan(
    camera: CameraName = None,
    cadence: Annotated[float, typer.Option(min=0.1, max=86_400, help="From exposure to exposure [s].")] = 34.0,
    arrival: Annotated[float, typer.Option(min=0, max=86_400, help="Raws of an exposure come over so long [s].")] = 2.0,
    pattern: Annotated[str, typer.Option(help="Detectors of each exposure.")] = "all",
    latency: Annotated[
        float | None, typer.Option(min=0.1, max=86_400, help="Wanted for 99 % of exposures [s]; half the cadence.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="What do so many do? Else: the fewest that do.")
    ] = None,
    node_cores: Annotated[int, typer.Option(min=1, help="Cores of a node.")] = 32,
    node_memory: Annotated[float, typer.Option(min=1, help="Memory of a node [GB].")] = 128.0,
    failover: Annotated[
        float, typer.Option(min=0, max=86_400, help="From a node's failure until its pods work elsewhere [s].")
    ] = 340.0,
    measured: Annotated[str, typer.Option(help="Results store to take costs from, and not those built in.")] = "",
    pipeline: Annotated[str, typer.Option(help="Whose costs.")] = "quicklook",
    as_json: Json = False,
) -> None:
    """Say what a camera needs at a cadence: workers, cores, memory, nodes, and the latencies to expect.

    Example: rapid cluster plan --camera LSSTCam --cadence 34

    A night is simulated on costs measured per payload, also with the failure of one node in the middle.
    """
    from dataclasses import asdict

    from rapid.cluster.costs import costs_of
    from rapid.cluster.plan import Demand, Nodes, plan_cluster
    from rapid.patterns.pattern import parse_pattern

    instrument = _camera(camera)
    detectors = len(parse_pattern(pattern).detectors(instrument))
    costs = costs_of(pipeline, measured, instrument)
    found = plan_cluster(
        Demand(detectors=detectors, cadence_s=cadence, arrival_s=arrival),
        costs,
        Nodes(cores=node_cores, memory_gb=node_memory, failover_s=failover),
        latency_s=latency,
        workers=workers,
    )
    if as_json:
        print_json({"costs": costs.model_dump(), **asdict(found)})
        return
    now, failed = found.latency, found.after_node_failure
    others = ", ".join(f"{n} {role}" for role, n in found.pods.items() if role != "worker")
    each_s = costs.core_s + costs.fixed_s
    print(
        f"{instrument.name}: {detectors} detectors every {cadence:g} s, {each_s:.2f} s of a worker each ({costs.source})"
    )
    print(f"pods        {found.workers} workers, {now.busy:.0%} of their time used; {others}")
    print(f"cores       {found.cores:.0f}")
    print(f"memory      {found.memory_gb:.0f} GB")
    print(f"nodes       {found.nodes} of {node_cores} cores and {node_memory:g} GB")
    print(f"board       {found.redis_mb:.0f} MB of Redis")
    print(f"to summary  p50 {now.p50_s:.1f} s, p90 {now.p90_s:.1f} s, p99 {now.p99_s:.1f} s after the first raw")
    print(
        f"node lost   {found.lost_workers} workers away for {failover:g} s: the worst exposure after {failed.worst_s:.1f} s, "
        f"{failed.n_late} not whole when the next begins"
    )
    for line in found.advice:
        print(f"advice      {line}")


@cluster_app.command()
def monitoring(
    folder: Annotated[Path, typer.Argument(help="Folder to write alerts.yaml and dashboard.json to.")] = Path(
        "k8s/components/monitoring"
    ),
) -> None:
    """Write alert rules and Grafana dashboard, made from the metrics the roles have.

    Example: rapid cluster monitoring k8s/components/monitoring
    """
    import json

    from rapid.cluster.monitoring import alert_rules_yaml, dashboard

    if not folder.is_dir():
        raise ConfigurationError("folder", f"{folder} is no folder")
    (folder / "alerts.yaml").write_text(alert_rules_yaml(), encoding="utf-8")
    (folder / "dashboard.json").write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")
    print(f"{folder}/alerts.yaml, {folder}/dashboard.json")


def _refuse_if_not_a_set(group: Any) -> None:
    if group.kind.value != "StatefulSet":
        raise ConfigurationError("group", f"{group.name} is a {group.kind.value}; worker groups are StatefulSets")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(cluster_app, name="cluster")
