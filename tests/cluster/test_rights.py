"""The RBAC roles allow exactly what the commands ask the API for: no request without a right, no right without a request."""

import copy
from urllib.parse import urlsplit

import pytest
from kubernetes import client

from rapid.cluster.api import Cluster
from rapid.cluster.elastic import Controller, Facts, SizePolicy, Sizer
from tests.cluster.apiserver import ApiServer
from tests.cluster.manifests import K8S, needs_kubectl, render
from tests.cluster.test_api import pod, stateful_set

pytestmark = needs_kubectl

NAME = "rapid-worker-science"


@pytest.fixture
def server():
    with ApiServer() as running:
        running.state.put("statefulsets", stateful_set())
        running.state.put("pods", pod(f"{NAME}-0"))
        yield running


@pytest.fixture
def cluster(server):
    configuration = client.Configuration(host=server.url)
    configuration.retries = False
    return Cluster("rapid", client.ApiClient(configuration), request_s=2.0)


def allowed(name: str) -> set[tuple[str, str]]:
    """Return what a role of the summit allows, as resource and verb."""
    role = next(
        item
        for item in render(K8S / "overlays" / "summit")
        if item["kind"] == "Role" and item["metadata"]["name"] == name
    )
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def asked(server: ApiServer) -> set[tuple[str, str]]:
    """Return what was asked for, as the API's authorization sees it."""
    found = set()
    for method, url in copy.copy(server.state.requests):
        parts = urlsplit(url)
        path = parts.path.split("/namespaces/")[1].split("/")[1:]
        resource = f"{path[0]}/{path[2]}" if len(path) == 3 else path[0]
        reading = "get" if len(path) > 1 else "watch" if "watch=" in parts.query else "list"
        found.add((resource, {"GET": reading, "PATCH": "patch", "POST": "create"}[method]))
    return found


def test_an_observer_may_look(server, cluster):
    cluster.groups()
    cluster.pods()
    assert asked(server) == allowed("rapid-observer")


def test_an_operator_may_scale_restart_drain_and_roll_out(server, cluster):
    cluster.groups()
    pods = cluster.pods()
    looks = []

    def is_seen_twice(*_):
        looks.append(1)
        if len(looks) == 1:
            server.state.put("pods", pod(f"{NAME}-1"))
        return len(looks) == 2

    cluster.wait_for(is_seen_twice, timeout_s=30, what="another look")
    cluster.scale(NAME, 4)
    cluster.set_version(NAME, image="rapid:2", partition=1)
    cluster.evict(pods[0])
    assert asked(server) == allowed("rapid-operator")


def test_the_controller_may_read_and_set_sizes(server, cluster):
    policy = SizePolicy(group=NAME, pools=("science",), least=5)
    controller = Controller([Sizer(policy)], lambda _: Facts(0, 0, 3, 1.0, None), cluster.size, cluster.scale)
    [decision], _ = controller.step()
    assert (decision.now, decision.size) == (3, 5)
    assert asked(server) == allowed("rapid-elastic")
