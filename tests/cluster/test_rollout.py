"""A roll-out over HTTP, against a controller that replaces pods at once: forth, back, and never further than the canary."""

import copy
import threading

import pytest
from kubernetes import client

from rapid.cluster.api import Cluster
from rapid.cluster.compare import Comparison
from rapid.cluster.models import Group
from rapid.cluster.rollout import canary_of, drain, restart, roll_out, wait_until_settled
from rapid.errors import RefusedError, StoreError
from rapid.wiring.camera import adopt_camera
from tests.cluster.apiserver import ApiServer
from tests.cluster.node import revision_of
from tests.cluster.test_api import pod, stateful_set

NAME = "rapid-worker-science"
GOOD = Comparison(True, (), 6, 3)
WORSE = Comparison(False, ("psf_fwhm_arcsec is +12.0% off (9 sigma)",), 6, 3)


class InstantController:
    """Replaces pods as a StatefulSet's controller does, without any process; pods of some images never get ready."""

    def __init__(self, server: ApiServer, *, broken: str = "") -> None:
        self.state, self.broken = server.state, broken
        self.images: list[dict[str, str]] = []
        self._templates: dict[str, str] = {}
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "InstantController":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.state.changed:
            self._stop = True
            self.state.changed.notify_all()
        self._thread.join(10)

    def _run(self) -> None:
        seen = -1
        while not self._stop:
            with self.state.changed:
                self.state.changed.wait_for(lambda seen=seen: self._stop or self.state.version != seen, timeout=30)
                seen = self.state.version
                self._reconcile()

    def _reconcile(self) -> None:
        item = self.state.get("statefulsets", NAME) or {}
        spec = item["spec"]
        revision = revision_of(spec["template"])
        self._templates[revision] = spec["template"]["spec"]["containers"][0]["image"]
        partition = spec["updateStrategy"]["rollingUpdate"]["partition"]
        pods = {one["metadata"]["name"]: one for one in self.state.select("pods")}
        stable = next(
            (one["metadata"]["labels"].get("controller-revision-hash") for one in pods.values()), None
        ) or revision  # fmt: skip
        for name, one in pods.items():
            if "deletionTimestamp" in one["metadata"] or int(name.rpartition("-")[2]) >= spec["replicas"]:
                self.state.remove("pods", name)
        for place in range(spec["replicas"]):
            name = f"{NAME}-{place}"
            known = self.state.get("pods", name)
            had = known["metadata"]["labels"].get("controller-revision-hash") if known else None
            should = revision if place >= partition else (had or stable)
            if had != should:
                self.state.remove("pods", name)
                fresh = copy.deepcopy(pod(name, ready=self._templates[should] != self.broken))
                fresh["metadata"]["labels"] = {**fresh["metadata"]["labels"], "controller-revision-hash": should}
                fresh["spec"]["containers"][0]["image"] = self._templates[should]
                self.state.put("pods", fresh)
        now = self.state.select("pods")
        images = {one["metadata"]["name"]: one["spec"]["containers"][0]["image"] for one in now}
        if not self.images or self.images[-1] != images:
            self.images.append(images)
        new = [one for one in now if one["metadata"]["labels"]["controller-revision-hash"] == revision]
        ready = [one for one in now if one["status"]["conditions"][0]["status"] == "True"]
        status = {
            "observedGeneration": item["metadata"]["generation"], "replicas": len(now), "readyReplicas": len(ready),
            "updatedReplicas": len(new), "updateRevision": revision,
        }  # fmt: skip
        self.state.update("statefulsets", NAME, lambda one: one.update(status=status))


@pytest.fixture
def server():
    with ApiServer() as running:
        item = stateful_set(replicas=3)
        item["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "ordinal/3"
        running.state.put("statefulsets", item)
        yield running


@pytest.fixture
def cluster(server):
    configuration = client.Configuration(host=server.url)
    configuration.retries = False
    return Cluster("rapid", client.ApiClient(configuration), request_s=3.0)


def prepare(cluster) -> Group:
    wait_until_settled(cluster, NAME, timeout_s=30)
    return cluster.group(NAME)


def test_a_version_as_good_as_before_goes_to_one_raft_then_to_all(server, cluster):
    camera = adopt_camera("LSSTComCam")  # one raft: the canary is all three workers, but for a larger camera's last
    told, asked = [], []
    with InstantController(server) as controller:
        group = prepare(cluster)
        canary = canary_of(group.model_copy(update={"wanted": 3}), adopt_camera("LSSTCam"))
        assert (canary.n_pods, len(canary_of(group, camera).detectors)) == (1, 9)

        def observe(detectors):
            asked.append((detectors, dict(controller.images[-1])))
            return GOOD

        done = roll_out(cluster, group, "rapid:2", canary, observe, timeout_s=30, tell=told.append)
    assert done.is_done
    [(detectors, images)] = asked
    assert set(range(180, 189)) <= detectors
    assert images == {f"{NAME}-0": "rapid:1", f"{NAME}-1": "rapid:1", f"{NAME}-2": "rapid:2"}
    assert set(controller.images[-1].values()) == {"rapid:2"}
    assert server.state.get("statefulsets", NAME)["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == 0


@pytest.mark.parametrize("how", ["worse", "never ready", "board away"])
def test_a_version_that_is_not_goes_back_and_never_past_the_canary(server, cluster, how):
    def observe(_detectors):
        if how == "board away":
            raise StoreError("the board is away")
        return WORSE

    with InstantController(server, broken="rapid:2" if how == "never ready" else "") as controller:
        group = prepare(cluster)
        canary = canary_of(group, adopt_camera("LSSTCam"))
        done = roll_out(
            cluster, group, "rapid:2", canary, observe, timeout_s=3 if how == "never ready" else 30, tell=lambda _: None
        )
    assert not done.is_done
    assert {"worse": "12.0%", "never ready": "not within", "board away": "away"}[how] in done.reason
    assert all(images.get(f"{NAME}-{n}", "rapid:1") == "rapid:1" for images in controller.images for n in (0, 1))
    assert set(controller.images[-1].values()) == {"rapid:1"}


def test_a_restart_replaces_every_pod_and_a_drain_those_named(server, cluster):
    with InstantController(server):
        prepare(cluster)
        before = {one.name: one.uid for one in cluster.pods()}
        restart(cluster, NAME, stamp="2026-11-21T00:00:00+00:00", timeout_s=30)
        middle = {one.name: one.uid for one in cluster.pods()}
        assert not set(before.values()) & set(middle.values())
        [last] = [one for one in cluster.pods() if one.name.endswith("-2")]
        drain(cluster, [last], timeout_s=30, tell=lambda _: None)
        wait_until_settled(cluster, NAME, timeout_s=30)
        after = {one.name: one.uid for one in cluster.pods()}
    assert after[f"{NAME}-2"] != middle[f"{NAME}-2"]
    assert {name: uid for name, uid in after.items() if not name.endswith("-2")} == {
        name: uid for name, uid in middle.items() if not name.endswith("-2")
    }


def budget(n: int) -> dict:
    spec = {"maxUnavailable": n, "selector": {"matchLabels": {"app.kubernetes.io/component": "worker"}}}
    return {"metadata": {"name": "b"}, "spec": spec}


def test_a_drain_goes_on_as_soon_as_the_budget_allows_it(server, cluster):
    told = []

    def tell(text):
        told.append(text)
        if "waits" in text:
            server.state.put("poddisruptionbudgets", budget(1))

    with InstantController(server):
        prepare(cluster)
        server.state.put("poddisruptionbudgets", budget(0))
        drain(cluster, cluster.pods()[:2], timeout_s=60, tell=tell)
    assert "disruption budget" in told[0]
    assert sorted(text for text in told if "told to leave" in text) == [f"{NAME}-{n} is told to leave" for n in (0, 1)]


def test_a_drain_that_no_budget_allows_says_so_in_time(server, cluster):
    with InstantController(server):
        prepare(cluster)
        server.state.put("poddisruptionbudgets", budget(0))
        with pytest.raises(RefusedError, match=f"{NAME}-0 may not leave: Cannot evict"):
            drain(cluster, cluster.pods()[:1], timeout_s=1, tell=lambda _: None)
    assert all(one.is_ready and not one.is_leaving for one in cluster.pods())
