"""Pods of our manifests as local processes: restarts in mid-night, growing and shrinking under a backlog."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from rapid.cluster.api import Cluster
from rapid.cluster.elastic import SizePolicy
from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind, WorkerMode
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.results.models import DetectorState
from rapid.results.store import open_results
from rapid.wiring.elastic import run_elastic
from tests.cluster.apiserver import ApiServer, is_ready
from tests.cluster.manifests import needs_kubectl, render
from tests.cluster.node import Node
from tests.support.light import use_light_pipelines
from tests.support.night import adopt_small_camera, make_plan, take_all

pytestmark = [needs_kubectl, pytest.mark.slow, pytest.mark.timeout(700)]

WAIT_S = 180.0
OVERLAY = Path(__file__).parent / "overlay"
BACKLOG = "rapid-worker-backlog"


class Local:
    """The emulated cluster, and the doors of the system on it."""

    def __init__(self, folder: Path, api: ApiServer, valkey: EmbeddedValkey) -> None:
        results_url = str(folder / "results.sqlite")
        self.results = open_results(results_url)
        secrets = {
            "rapid-redis": dict.fromkeys(("head", "worker", "gather", "display"), valkey.url),
            "rapid-results": {"url": results_url},
        }
        self.node = Node(api.state, render(OVERLAY), folder / "node", secrets)
        self.state = api.state
        self.raws = folder / "node" / "claims" / "rapid-raws"
        self.raws.mkdir(parents=True)
        self.board = Board(valkey.url, "SmallCam9")
        configuration = client.Configuration(host=api.url)
        configuration.retries = False
        self.cluster = Cluster("rapid", client.ApiClient(configuration))
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(api.kubeconfig("rapid"))
        self.environment = dict(os.environ) | {
            "KUBECONFIG": str(kubeconfig),
            "RAPID_REDIS_URL": valkey.url,
            "RAPID_CAMERA": "SmallCam9",
            "RAPID_RESULTS_URL": results_url,
        }

    def rapid(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `rapid` as an operator would."""
        return subprocess.run(
            [sys.executable, "-m", "rapid", *arguments],
            env=self.environment, capture_output=True, text=True, check=False, timeout=WAIT_S,
        )  # fmt: skip

    def wait_until_ready(self, n: int) -> None:
        with self.state.changed:
            done = self.state.changed.wait_for(
                lambda: sum(is_ready(pod) for pod in self.state.select("pods")) >= n, timeout=WAIT_S
            )
        assert done, self.node.logs()

    def summaries_of(self, exposures: list[int]) -> None:
        """Wait until the newest summary of every exposure shows all nine detectors."""
        last, deadline = "0", time.monotonic() + WAIT_S
        missing = set(exposures)
        while missing:
            assert time.monotonic() < deadline, f"missing {missing}\n{self.node.logs()}"
            for event in self.board.events(last, timeout_s=2.0):
                last = event.event_id
                if event.kind is EventKind.SUMMARY_READY and event.data["n_finished"] == 9:
                    missing.discard(event.exposure_id)

    def close(self) -> None:
        self.node.stop()
        self.board.close()
        self.results.close()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    adopt_small_camera(tmp_path, monkeypatch)
    use_light_pipelines(tmp_path / "pipelines", monkeypatch)
    with ApiServer() as api, EmbeddedValkey(tmp_path / "valkey") as valkey:
        started = Local(tmp_path, api, valkey)
        started.node.start()
        try:
            yield started
        finally:
            started.close()


def science(n: int, first: int = 1):
    return make_plan([{"kind": "science", "n": n, "physical_filter": "r_57"}], first_seq_num=first)


def test_a_rolling_restart_of_all_workers_in_mid_night_loses_nothing(local):
    local.wait_until_ready(5)  # head, gather, two workers and one
    status = local.rapid("cluster", "status", "--json")
    assert status.returncode == 0, status.stdout + status.stderr
    document = json.loads(status.stdout)
    assert {row["worker_state"] for row in document["pods"] if row["pod"]["component"] == "worker"} <= {
        "parked",
        "idle",
    }
    assert document["unowned"] == []
    before = {pod.name: pod.uid for pod in local.cluster.pods() if pod.component == "worker"}

    exposures: list[int] = []
    done = threading.Event()

    def night() -> None:
        first = 1
        while not done.is_set() and first < 40:
            exposures.extend(take_all(science(1, first), local.raws))
            first += 1
            done.wait(2.0)

    taking = threading.Thread(target=night)
    taking.start()
    try:
        for group in ("science", "backlog"):
            restarted = local.rapid("cluster", "restart", group)
            assert restarted.returncode == 0, restarted.stderr + local.node.logs()
    finally:
        done.set()
        taking.join()

    assert len(exposures) >= 4
    local.summaries_of(exposures)
    for exposure in exposures:
        newest = max(local.results.summary_versions("SmallCam9", exposure), key=lambda one: one.version)
        assert {one.state for one in newest.detectors.values()} == {DetectorState.FINISHED}
        rows = [(one.detector, one.pipeline) for one in local.results.results(exposure, camera="SmallCam9")]
        assert sorted(set(rows)) == sorted(rows)
        assert len(rows) == 9
    after = {pod.name: pod.uid for pod in local.cluster.pods() if pod.component == "worker"}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    drained = [pod for pod in local.node.ended if pod.name in before]
    assert [pod.status for pod in drained] == [0] * 3
    assert not any(pod.forced for pod in drained)
    assert local.board.status().dead_letters == 0


@pytest.mark.skipif(not os.environ.get("RAPID_LONG_TESTS"), reason="takes minutes; RAPID_LONG_TESTS=1 runs it")
def test_a_backlog_makes_the_group_grow_and_its_end_makes_it_shrink(local):
    local.wait_until_ready(5)
    local.cluster.scale("rapid-worker-science", 0)
    policy = SizePolicy(group=BACKLOG, pools=("science", "build"), least=2, most=6, drain_s=1.0, calm=2, largest_step=4)
    told: list[str] = []
    sizes: list[int] = []
    stop, changed = threading.Event(), threading.Condition()

    def tell(text: str) -> None:
        with changed:
            told.append(text)
            sizes.append(local.cluster.size(BACKLOG))
            changed.notify_all()

    deciding = threading.Thread(
        target=run_elastic,
        args=(local.cluster, Board(local.environment["RAPID_REDIS_URL"], "SmallCam9"), [policy]),
        kwargs={"interval_s": 0.5, "is_dry": False, "once": False, "stop": stop, "tell": tell},
    )
    # In mode waiting all but the newest exposure stay in the backlog.
    local.board.set_mode(WorkerMode.WAITING)
    exposures = take_all(science(20), local.raws)
    deciding.start()
    try:
        with changed:
            assert changed.wait_for(lambda: 6 in sizes, timeout=WAIT_S), told
        local.board.set_mode(WorkerMode.CONSUMING)
        local.summaries_of(exposures)
        with changed:
            assert changed.wait_for(lambda: sizes[-1] == 2, timeout=WAIT_S), told
    finally:
        stop.set()
        deciding.join(WAIT_S)
    with local.state.changed:
        assert local.state.changed.wait_for(
            lambda: (
                len([pod for pod in local.state.select("pods") if pod["metadata"]["name"].startswith(BACKLOG)]) == 2
            ),
            timeout=WAIT_S,
        )
    assert not any(pod.forced for pod in local.node.ended)
    assert local.board.status().dead_letters == 0
    grown = next(text for text in told if "-> 6" in text)
    assert "jobs of backlog" in grown
