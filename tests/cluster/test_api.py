"""The client over real HTTP: reads, changes, conflicts, crowds, time-outs, watches that end."""

import pytest
from kubernetes import client

from rapid.cluster.api import Cluster, NotNowError
from rapid.cluster.models import GroupKind
from rapid.errors import NotFoundError, RefusedError, StoreError
from tests.cluster.apiserver import ApiServer, Fault, mark_for_deletion

LABELS = {"app.kubernetes.io/part-of": "rapid", "app.kubernetes.io/component": "worker"}


def pod(name, *, ready=True, uid=None):
    return {
        "metadata": {
            "name": name,
            "labels": LABELS,
            **({"uid": uid} if uid else {}),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name.rpartition("-")[0], "uid": "u"}],
        },
        "spec": {"containers": [{"name": "rapid", "image": "rapid:1"}], "nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [
                {"name": "rapid", "ready": ready, "restartCount": 2, "image": "rapid:1", "imageID": "",
                 "state": {"waiting": {"reason": "CrashLoopBackOff"}} if not ready else {"running": {}}}
            ],
        },
    }  # fmt: skip


def stateful_set(name="rapid-worker-science", replicas=3):
    return {
        "metadata": {"name": name, "labels": LABELS},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": LABELS},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {
                    "containers": [
                        {"name": "rapid", "image": "rapid:1", "env": [{"name": "RAPID_PINNED", "value": "ordinal/3"}]}
                    ],
                    "initContainers": [{"name": "kernels", "image": "rapid:1"}],
                },
            },
        },
        "status": {
            "readyReplicas": replicas,
            "updatedReplicas": replicas,
            "observedGeneration": 1,
            "replicas": replicas,
        },
    }


@pytest.fixture
def server():
    with ApiServer() as running:
        running.state.put("statefulsets", stateful_set())
        for place in (0, 1, 10):
            running.state.put("pods", pod(f"rapid-worker-science-{place}"))
        running.state.put("pods", {**pod("other"), "metadata": {"name": "other", "labels": {}}})
        yield running


@pytest.fixture
def cluster(server):
    configuration = client.Configuration(host=server.url)
    configuration.retries = False
    return Cluster("rapid", client.ApiClient(configuration), request_s=2.0, attempts=3)


def test_groups_and_pods_are_read(cluster):
    [group] = cluster.groups()
    assert (group.name, group.kind, group.wanted, group.image) == (
        "rapid-worker-science",
        GroupKind.STATEFUL_SET,
        3,
        "rapid:1",
    )
    assert group.pinned == "ordinal/3"
    assert [one.name for one in cluster.pods()] == [f"rapid-worker-science-{n}" for n in (0, 1, 10)]
    assert all(one.is_ready and one.node == "node-1" and one.group == group.name for one in cluster.pods())


def test_a_pod_in_trouble_says_why(cluster, server):
    server.state.put("pods", pod("rapid-worker-science-1", ready=False))
    found = next(one for one in cluster.pods() if one.name.endswith("-1"))
    assert (found.is_ready, found.reason, found.restarts) == (False, "CrashLoopBackOff", 2)


def test_a_size_is_set(cluster, server):
    cluster.scale("rapid-worker-science", 7)
    assert server.state.get("statefulsets", "rapid-worker-science")["spec"]["replicas"] == 7
    assert cluster.size("rapid-worker-science") == 7


def test_a_version_is_set_with_its_partition_in_one_patch(cluster, server):
    cluster.set_version("rapid-worker-science", image="rapid:2", partition=2)
    spec = server.state.get("statefulsets", "rapid-worker-science")["spec"]
    containers = spec["template"]["spec"]["containers"]
    assert [one["image"] for one in containers] == ["rapid:2"]
    assert containers[0]["env"], "the rest of the container stays as it was"
    assert spec["template"]["spec"]["initContainers"][0]["image"] == "rapid:2"
    assert spec["updateStrategy"]["rollingUpdate"]["partition"] == 2
    assert len([one for one in server.state.requests if one[0] == "PATCH"]) == 1


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_a_fault_that_passes_is_outlived(cluster, server, status):
    server.state.faults.append(Fault("/scale", status, n=2, headers={"Retry-After": "0"}))
    cluster.scale("rapid-worker-science", 4)
    assert server.state.get("statefulsets", "rapid-worker-science")["spec"]["replicas"] == 4


@pytest.mark.parametrize(("status", "error"), [(409, RefusedError), (429, RefusedError), (500, StoreError)])
def test_a_fault_that_stays_ends_after_bounded_attempts(cluster, server, status, error):
    server.state.faults.append(Fault("/scale", status, n=100, headers={"Retry-After": "0"}))
    with pytest.raises(error, match="ordered by the test"):
        cluster.scale("rapid-worker-science", 4)
    assert len([path for _, path in server.state.requests if "/scale" in path]) == 3


def test_what_is_not_there_and_what_one_may_not_is_said_plainly(cluster, server):
    with pytest.raises(NotFoundError, match="namespace rapid has no statefulsets nope"):
        cluster.size("nope")
    server.state.faults += [Fault("/scale", 401), Fault("/scale", 403)]
    with pytest.raises(RefusedError, match=r"401.*log in again"):
        cluster.size("rapid-worker-science")
    with pytest.raises(RefusedError, match=r"403.*rapid-operator"):
        cluster.size("rapid-worker-science")


def test_patches_are_strategic_merges(cluster, server):
    """A plain merge patch would replace the list of containers."""
    cluster.set_version("rapid-worker-science", image="rapid:2")
    cluster.scale("rapid-worker-science", 4)
    assert server.state.patch_types == {"application/strategic-merge-patch+json"}


@pytest.mark.parametrize(("status", "error"), [(403, RefusedError), (404, NotFoundError)])
def test_what_asking_again_would_not_mend_is_asked_once(cluster, server, status, error):
    server.state.faults.append(Fault("/scale", status, n=100))
    with pytest.raises(error):
        cluster.scale("rapid-worker-science", 4)
    assert len([path for _, path in server.state.requests if "/scale" in path]) == 1


def test_a_server_that_does_not_answer_in_time_is_asked_again(cluster, server):
    server.state.faults.append(Fault("/scale", 0, n=1, delay_s=30.0))
    cluster.scale("rapid-worker-science", 5)
    assert server.state.get("statefulsets", "rapid-worker-science")["spec"]["replicas"] == 5


def test_a_server_that_is_gone_is_said_to_be():
    with ApiServer() as gone:
        configuration = client.Configuration(host=gone.url)
    configuration.retries = False
    with pytest.raises(StoreError, match=f"at {gone.url} does not answer: NewConnectionError .*Connection refused"):
        Cluster("rapid", client.ApiClient(configuration), attempts=2).pods()


def test_waiting_wakes_on_a_change_and_outlives_ended_and_outdated_watches(cluster, server):
    server.state.faults.append(Fault("watch=True", 500, n=1))
    server.state.faults.append(Fault("watch=True", 410, n=1))
    calls = []

    def is_there(pods, _groups):
        calls.append(len(pods))
        if len(calls) == 3:
            server.state.put("pods", pod("rapid-worker-science-2"))
        return len(pods) == 4

    cluster.wait_for(is_there, timeout_s=30, what="a fourth pod")
    assert calls[-1] == 4


def test_waiting_ends_in_time_and_says_for_what(cluster):
    with pytest.raises(StoreError, match="a miracle: not within 1 s"):
        cluster.wait_for(lambda *_: False, timeout_s=1.0, what="a miracle")


def test_an_eviction_obeys_the_budget_and_names_the_very_pod(cluster, server):
    server.state.put(
        "poddisruptionbudgets",
        {"metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}}},
    )
    first, second, _ = cluster.pods()
    cluster.evict(first)
    assert "deletionTimestamp" in server.state.get("pods", first.name)["metadata"]
    with pytest.raises(NotNowError, match="disruption budget"):
        cluster.evict(second)
    server.state.remove("pods", first.name)
    cluster.evict(first)  # gone already: nothing to do
    server.state.put("pods", pod(first.name, uid="another"))
    with pytest.raises(RefusedError, match="UID"):
        cluster.evict(first)
    mark_for_deletion(server.state, first.name)
