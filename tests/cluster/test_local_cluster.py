"""Pods of our manifests as local processes: restarts in mid-night, growing and shrinking under a backlog."""

import copy
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from kubernetes import client

from rapid.camera.models import Camera
from rapid.cluster.api import Cluster
from rapid.cluster.elastic import SizePolicy
from rapid.cluster.rollout import wait_until_settled
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

pytestmark = [needs_kubectl, pytest.mark.slow, pytest.mark.timeout(900)]

WAIT_S = 240.0
OVERLAY = Path(__file__).parent / "overlay"
BACKLOG = "rapid-worker-backlog"


class Local:
    """The emulated cluster, and the doors of the system on it.

    Parameters
    ----------
    replicas
        Sizes of groups in place of those of the overlay.
    """

    def __init__(
        self, folder: Path, camera: Camera, api: ApiServer, valkey: EmbeddedValkey, replicas: Mapping[str, int]
    ) -> None:
        self.camera = camera
        results_url = str(folder / "results.sqlite")
        self.results = open_results(results_url)
        secrets = {
            "rapid-redis": dict.fromkeys(("head", "worker", "gather", "display"), valkey.url),
            "rapid-results": {"url": results_url},
        }
        objects = copy.deepcopy(render(OVERLAY))
        for item in objects:
            if item["metadata"]["name"] in replicas and item["kind"] in {"Deployment", "StatefulSet"}:
                item["spec"]["replicas"] = replicas[item["metadata"]["name"]]
        self.node = Node(api.state, objects, folder / "node", secrets)
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

    def posts_of(self, exposures: list[int]) -> None:
        """Wait until every detector of every exposure lies on the board."""
        last, deadline = "0", time.monotonic() + WAIT_S
        while sum(queue.backlog + queue.current for queue in self.board.status().queues) < 9 * len(exposures):
            assert time.monotonic() < deadline, f"{self.board.status()}\n{self.node.logs()}"
            for event in self.board.events(last, timeout_s=1.0):
                last = event.event_id

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

    def assert_nothing_is_lost(self, exposures: list[int]) -> None:
        """Check that every detector of every exposure was finished, and once, and that nobody gave a job up."""
        for exposure in exposures:
            newest = max(self.results.summary_versions("SmallCam9", exposure), key=lambda one: one.version)
            assert {one.state for one in newest.detectors.values()} == {DetectorState.FINISHED}
            found = self.results.results(exposure, camera="SmallCam9")
            rows = [(one.detector, one.pipeline) for one in found]
            assert sorted(set(rows)) == sorted(rows)
            assert len(rows) == 9
            assert all(one.timings["worker_s"] >= one.timings["total_s"] for one in found)
        assert self.board.status().dead_letters == 0

    def close(self) -> None:
        self.node.stop()
        self.board.close()
        self.results.close()


@pytest.fixture
def replicas() -> Mapping[str, int]:
    return {}


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicas: Mapping[str, int]) -> Iterator[Local]:
    camera = adopt_small_camera(tmp_path, monkeypatch)
    use_light_pipelines(tmp_path / "pipelines", monkeypatch)
    with ApiServer() as api, EmbeddedValkey(tmp_path / "valkey") as valkey:
        started = Local(tmp_path, camera, api, valkey, replicas)
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
    pinned = {row["pod"]["name"]: row["pinned"] for row in document["pods"] if row["worker_state"]}
    owned = sorted(detector.id for detector in local.camera.detectors)
    assert pinned == {
        "rapid-worker-science-0": owned[:4],
        "rapid-worker-science-1": owned[4:],
        f"{BACKLOG}-0": [],
    }
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
    local.assert_nothing_is_lost(exposures)
    after = {pod.name: pod.uid for pod in local.cluster.pods() if pod.component == "worker"}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    drained = [pod for pod in local.node.ended if pod.name in before]
    assert [pod.status for pod in drained] == [0] * 3
    assert not any(pod.forced for pod in drained)


class Watched:
    """The elastic controller at work in a thread, with what it said and the sizes it set."""

    def __init__(self, local: Local, policy: SizePolicy) -> None:
        self.told: list[str] = []
        self.sizes: list[int] = []
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._local, self._group = local, policy.group
        self._board = Board(local.environment["RAPID_REDIS_URL"], "SmallCam9")
        self._thread = threading.Thread(target=self._run, args=(policy,), name="elastic")

    def _run(self, policy: SizePolicy) -> None:
        run_elastic(
            self._local.cluster, self._board, [policy],
            interval_s=0.25, is_dry=False, once=False, stop=self._stop, tell=self._tell,
        )  # fmt: skip

    def _tell(self, text: str) -> None:
        with self._changed:
            self.told.append(text)
            self.sizes.append(self._local.cluster.size(self._group))
            self._changed.notify_all()

    def wait_for_size(self, size: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.sizes[-1:] == [size], timeout=WAIT_S), self.told[-5:]

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        self._board.close()


@pytest.mark.parametrize("replicas", [{"rapid-worker-science": 0, BACKLOG: 0}], ids=["no worker yet"])
def test_a_backlog_makes_the_group_grow_and_its_end_makes_it_shrink(local):
    local.wait_until_ready(2)  # head and gather
    # In mode waiting all but the newest exposure stay in the backlog, and that one tells what a job takes.
    local.board.set_mode(WorkerMode.WAITING)
    exposures = take_all(science(6), local.raws)
    local.posts_of(exposures)
    local.cluster.scale(BACKLOG, 2)
    local.wait_until_ready(4)
    # A drain time this short wants more workers than the bound for any job there is.
    policy = SizePolicy(group=BACKLOG, pools=("science", "build"), least=2, most=6, drain_s=0.01, calm=3)
    with Watched(local, policy) as controller:
        controller.wait_for_size(6)
        local.wait_until_ready(8)
        local.board.set_mode(WorkerMode.CONSUMING)
        local.summaries_of(exposures)
        controller.wait_for_size(2)
    wait_until_settled(local.cluster, BACKLOG, timeout_s=WAIT_S)

    told = controller.told
    grown = next(text for text in told if "2 -> 6" in text)
    assert "45 jobs of backlog" in grown
    assert "bounds are 2 to 6" in grown
    # Half of what is too much at a time, and only after three calm decisions: the first two are told, and change nothing.
    shrunk = next(place for place, text in enumerate(told) if "6 -> 4" in text)
    assert ["of 3 times in a row" in text for text in told[shrunk - 2 : shrunk]] == [True, True]
    assert max(controller.sizes) == 6
    local.assert_nothing_is_lost(exposures)
    left = sorted(pod.name for pod in local.cluster.pods() if pod.component == "worker")
    assert left == [f"{BACKLOG}-0", f"{BACKLOG}-1"]
    drained = [pod for pod in local.node.ended if pod.name.startswith(BACKLOG)]
    assert {pod.name for pod in drained} == {f"{BACKLOG}-{place}" for place in (2, 3, 4, 5)}
    assert {(pod.status, pod.forced, pod.restarts) for pod in drained} == {(0, False, 0)}
