"""`rapid cluster` as an operator types it: what is refused, and what is said of it."""

import re

import pytest
import typer
from typer.testing import CliRunner

from rapid.cli.cluster import register
from rapid.errors import RapidError
from tests.cluster.apiserver import ApiServer
from tests.cluster.test_api import LABELS, pod, stateful_set

NAME = "rapid-worker-science"


@pytest.fixture
def server(tmp_path, monkeypatch):
    with ApiServer() as running:
        running.state.put("statefulsets", stateful_set())
        running.state.put("pods", pod(f"{NAME}-0"))
        head = stateful_set("rapid-head", 1)
        del head["spec"]["updateStrategy"], head["spec"]["serviceName"]
        running.state.put("deployments", {**head, "metadata": {"name": "rapid-head", "labels": LABELS}})
        (tmp_path / "kubeconfig").write_text(running.kubeconfig("rapid"))
        # KUBECONFIG is read when the client is imported, which was long ago.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("RAPID_CAMERA", "LSSTComCam")
        yield running


def cluster(*words: str) -> tuple[int, str]:
    """Run a command; return its status, and its output or why it was refused."""
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, ["cluster", *words])
    if isinstance(done.exception, RapidError):
        return 1, done.exception.message
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("scale nope 3", "no nope; there are rapid-head, rapid-worker-science"),
        ("scale head 3", "rapid-head is a Deployment; worker groups are StatefulSets"),
        ("restart head", "rapid-head is a Deployment; worker groups are StatefulSets"),
        ("drain", "name pods, or one node with --node"),
        ("drain rapid-worker-science-0 --node node-1", "name pods, or one node with --node"),
        ("drain rapid-worker-science-7", "no pod of ours: rapid-worker-science-7"),
        ("drain --node nope", "no pod of ours: on node nope"),
        ("rollout science rapid:1", "rapid-worker-science has rapid:1 already; rapid cluster restart science starts it anew"),
        ("rollout nope rapid:2", "no nope; there are"),
        ("plan --cadence nan", "cadence"),
        ("plan --cadence 0", "cadence"),
        ("plan --camera Nope", "no camera named Nope (known: LATISS"),
        ("plan --pipeline donut", "nothing built in for donut"),
        ("plan --measured /none.sqlite", "no database at /none.sqlite"),
        ("plan --node-memory 1", "a worker wants 1 core and"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_its_reason(server, words, said):
    status, output = cluster(*words.split())
    assert status != 0
    assert said in re.sub(r"\s+", " ", output)
    assert not [method for method, _ in server.state.requests if method != "GET"]


@pytest.mark.parametrize("image", ["", " ", "rapid 2"])
def test_an_image_without_a_name_is_refused(server, image):
    assert cluster("rollout", "science", image)[1].endswith("names no image")
    assert not [method for method, _ in server.state.requests if method != "GET"]


def test_a_plan_names_pods_cores_memory_latencies_and_the_loss_of_a_node(server):
    status, output = cluster("plan", "--camera", "LSSTComCam", "--cadence", "34")
    assert status == 0
    for word in ("pods ", "2 head", "cores ", "memory ", "nodes ", "MB of Redis", "p50", "p90", "p99", "node lost"):
        assert word in output
    assert not server.state.requests, "a plan needs no cluster"
