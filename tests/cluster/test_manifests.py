"""The manifests: rendered by kubectl, strictly valid for several versions, hardened, and in step with the code."""

import json
import re

import kubernetes_validate
import pytest
import yaml

from rapid.cluster.monitoring import ALERTS, PANELS, alert_rules, dashboard
from rapid.cluster.plan import ROLES
from rapid.patterns.placement import pinned_detectors
from rapid.wiring.camera import adopt_camera
from rapid.wiring.elastic import default_policies
from rapid.wiring.settings import RoleSettings
from tests.cluster.manifests import K8S, OVERLAYS, needs_kubectl, pods_of, render

pytestmark = needs_kubectl

VERSIONS = ("1.29", "1.33", "1.37")
FOREIGN = {"ScaledObject", "PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Kinds of KEDA and the Prometheus operator: no schema of theirs is at hand."""

UNITS = {"Mi": 2**20, "Gi": 2**30}


@pytest.fixture(params=OVERLAYS)
def objects(request):
    return render(K8S / "overlays" / request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_strictly_valid(objects, version):
    for item in objects:
        if item["kind"] not in FOREIGN:
            kubernetes_validate.validate(item, version, strict=True)


def test_a_misspelt_field_would_be_found(objects):
    deployment = next(item for item in objects if item["kind"] == "Deployment")
    broken = {**deployment, "spec": {**deployment["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_every_pod_is_hardened(objects):
    for name, pod in pods_of(objects):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] >= 10000, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is (name == "rapid-elastic"), name
        assert pod["enableServiceLinks"] is False, name
        assert not ({"hostNetwork", "hostPID", "hostIPC"} & pod.keys()), name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            where = f"{name}/{container['name']}"
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert "latest" not in container["image"], where
            assert ":" in container["image"], where
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][kind].keys(), where
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for volume in pod["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], name


def test_every_container_has_probes_and_time_to_drain(objects):
    settings = next(item["data"] for item in objects if item["kind"] == "ConfigMap" and "RAPID_DRAIN_S" in item["data"])
    for name, pod in pods_of(objects):
        for container in pod["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), name
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                found = container[probe]
                port = (found.get("httpGet") or found.get("tcpSocket"))["port"]
                assert port in ports, f"{name} {probe}"
        if name.startswith("rapid-worker"):
            assert pod["terminationGracePeriodSeconds"] >= float(settings["RAPID_DRAIN_S"]) + 10, name


def test_every_pod_has_a_budget_a_policy_and_a_priority(objects):
    classes = {item["metadata"]["name"]: item["value"] for item in objects if item["kind"] == "PriorityClass"}
    assert classes["rapid-current"] > classes["rapid-backlog"]
    budgets = [item["spec"]["selector"]["matchLabels"] for item in objects if item["kind"] == "PodDisruptionBudget"]
    denied = [
        item
        for item in objects
        if item["kind"] == "NetworkPolicy" and set(item["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    ]
    for item in objects:
        if item["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        labels = item["spec"]["template"]["metadata"]["labels"]
        name = item["metadata"]["name"]
        assert item["spec"]["selector"]["matchLabels"].items() <= labels.items(), name
        if name != "rapid-elastic":
            assert any(budget.items() <= labels.items() for budget in budgets), name
        assert any(policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items() for policy in denied), name
        priority = item["spec"]["template"]["spec"]["priorityClassName"]
        assert priority == ("rapid-backlog" if name == "rapid-worker-backlog" else "rapid-current")


def test_no_budget_keeps_a_node_from_being_drained(objects):
    """A budget that a single replica cannot meet would hold up `kubectl drain` for good."""
    for item in objects:
        if item["kind"] == "PodDisruptionBudget":
            assert "minAvailable" not in item["spec"], item["metadata"]["name"]
            assert item["spec"]["maxUnavailable"] not in {0, "0%"}, item["metadata"]["name"]


def test_each_role_is_spread_over_nodes_by_itself(objects):
    for item in objects:
        if item["kind"] in {"Deployment", "StatefulSet"} and item["spec"].get("replicas", 1) > 1:
            [spread] = item["spec"]["template"]["spec"]["topologySpreadConstraints"]
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
            own = item["spec"]["selector"]["matchLabels"].keys()
            assert own <= set(spread["matchLabelKeys"]), item["metadata"]["name"]


def test_what_pods_refer_to_is_there(objects):
    maps = {item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"}
    claims = {item["metadata"]["name"] for item in objects if item["kind"] == "PersistentVolumeClaim"}
    accounts = {item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"}
    for name, pod in pods_of(objects):
        assert pod.get("serviceAccountName", "default") in accounts | {"default"}, name
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps, name
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, name
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]} | {"data"}, name
            for source in container.get("envFrom", []):
                assert "secretRef" in source or source["configMapRef"]["name"] in maps, name


def test_every_setting_is_one_we_have(objects):
    known = {f"RAPID_{name.upper()}" for name in RoleSettings.model_fields}
    known |= {f"{name}_FILE" for name in known} | {"RAPID_CAMERA_PATH", "RAPID_PIPELINE_PATH", "RAPID_NAMESPACE"}
    for item in objects:
        if item["kind"] == "ConfigMap":
            assert {name for name in item["data"] if name.startswith("RAPID_")} <= known
    for name, pod in pods_of(objects):
        for container in pod["containers"]:
            given = {one["name"] for one in container.get("env", []) if one["name"].startswith("RAPID_")}
            assert given <= known, name


def test_ingest_comes_with_its_component_alone_and_takes_in_what_the_heads_watch():
    plain = render(K8S / "overlays" / "single-node")
    butler = render(K8S / "overlays" / "single-node-butler")
    assert "rapid-ingest" not in dict(pods_of(plain))
    settings = next(item["data"] for item in butler if item["kind"] == "ConfigMap" and "RAPID_RAWS" in item["data"])
    pods = dict(pods_of(butler))
    [container] = pods["rapid-ingest"]["containers"]
    assert container["args"] == ["ingest"]
    assert container["image"].partition(":")[0].endswith("/rapid-butler"), "the others do without the Butler"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert {settings["RAPID_RAWS"], given["RAPID_BUTLER_REPO"]} <= mounts.keys()
    claims = {
        one["name"]: one.get("persistentVolumeClaim", {}).get("claimName") for one in pods["rapid-ingest"]["volumes"]
    }
    head = {one["name"]: one.get("persistentVolumeClaim", {}).get("claimName") for one in pods["rapid-head"]["volumes"]}
    assert claims[mounts[settings["RAPID_RAWS"]]] == head["raws"]
    assert {name for name, pod in pods.items() if name not in {name for name, _ in pods_of(plain)}} == {"rapid-ingest"}


def test_displays_find_the_raws_and_publish_can_write_products(objects):
    settings = next(item["data"] for item in objects if item["kind"] == "ConfigMap" and "RAPID_RAWS" in item["data"])
    pods = dict(pods_of(objects))
    for name in ("rapid-display", "rapid-publish"):
        [container] = pods[name]["containers"]
        assert {"configMapRef": {"name": _settings_name(objects)}} in container["envFrom"], name
        if settings["RAPID_RAWS"].startswith("s3://"):
            assert {"secretRef": {"name": "rapid-s3", "optional": True}} in container["envFrom"], name
            continue
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts[settings["RAPID_RAWS"]].get("readOnly") is True, name
        assert not mounts[settings["RAPID_PRODUCTS_URL"]].get("readOnly"), name


def _settings_name(objects) -> str:
    return next(
        item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap" and "RAPID_RAWS" in item["data"]
    )


def test_publish_alone_reaches_the_telemetry(objects):
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    open_to = {
        item["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for item in policies
        for rule in item["spec"].get("egress", [])
        for port in rule.get("ports", [])
        if port["port"] == 8086
    }
    assert open_to == {"publish"}


SIZES = re.compile(r"^\| `(rapid-[a-z-]+)` \|((?: [^|]*\|){5})$", re.MULTILINE)


def asked(item):
    """Return what the pods of a Deployment or StatefulSet ask for, each: cores, and memory as it is written."""
    requests = item["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    return requests["cpu"], requests["memory"]


def test_the_guide_has_the_sizes_that_the_overlays_have():
    text = (K8S.parent / "docs" / "kubernetes.md").read_text()
    told = {name: [cell.strip() for cell in cells.split("|")[:-1]] for name, cells in SIZES.findall(text)}
    found: dict[str, list[str]] = {}
    for place, overlay in enumerate(("summit", "base-test-stand", "single-node")):
        for item in render(K8S / "overlays" / overlay):
            if item["kind"] in {"Deployment", "StatefulSet"}:
                row = found.setdefault(item["metadata"]["name"], ["", "", "", *asked(item)])
                row[place] = str(item["spec"].get("replicas", 1))
                assert row[3:] == list(asked(item))
    assert told == found


def test_the_planner_counts_the_pods_and_requests_of_the_summit():
    sets = {
        item["metadata"]["name"].removeprefix("rapid-"): item
        for item in render(K8S / "overlays" / "summit")
        if item["kind"] in {"Deployment", "StatefulSet"}
    }
    assert {role.name for role in ROLES} == {name for name in sets if not name.startswith("worker")}
    for role in ROLES:
        cpu, memory = asked(sets[role.name])
        assert role.pods == sets[role.name]["spec"].get("replicas", 1), role.name
        assert role.cores == (float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)), role.name
        assert role.memory_gb == pytest.approx(int(memory[:-2]) * UNITS[memory[-2:]] / 1e9, abs=0.001), role.name


def test_the_workers_of_each_group_own_every_detector_once(objects):
    settings = next(item["data"] for item in objects if item["kind"] == "ConfigMap" and "RAPID_CAMERA" in item["data"])
    camera = adopt_camera(settings["RAPID_CAMERA"])
    science = next(
        item for item in objects if item["metadata"]["name"] == "rapid-worker-science" and item["kind"] == "StatefulSet"
    )
    container = science["spec"]["template"]["spec"]["containers"][0]
    pinned = next(one.get("value", "") for one in container["env"] if one["name"] == "RAPID_PINNED")
    if not pinned:
        return
    assert pinned == f"ordinal/{science['spec']['replicas']}"
    shares = [pinned_detectors(pinned, camera, f"rapid-worker-science-{n}") for n in range(science["spec"]["replicas"])]
    assert (
        sorted(detector for share in shares for detector in share)
        == list(range(len(camera.detectors)))[: sum(map(len, shares))]
    )
    assert len(frozenset().union(*shares)) == sum(map(len, shares))


def test_the_controller_may_set_the_sizes_it_decides_on_and_nothing_else():
    objects = render(K8S / "overlays" / "summit")
    role = next(item for item in objects if item["kind"] == "Role" and item["metadata"]["name"] == "rapid-elastic")
    groups = {policy.group for policy in default_policies()}
    for rule in role["rules"]:
        assert set(rule["resourceNames"]) == groups
        assert set(rule["verbs"]) <= {"get", "list", "patch"}
    operator = next(item for item in objects if item["kind"] == "Role" and item["metadata"]["name"] == "rapid-operator")
    verbs = {(resource, verb) for rule in operator["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert not {(resource, verb) for resource, verb in verbs if verb in {"delete", "deletecollection", "*", "update"}}
    assert ("pods/eviction", "create") in verbs
    assert not {resource for resource, _ in verbs if resource in {"secrets", "pods/exec", "*"}}


def test_alerts_and_dashboard_are_those_of_the_code():
    folder = K8S / "components" / "monitoring"
    assert yaml.safe_load((folder / "alerts.yaml").read_text()) == alert_rules()
    assert json.loads((folder / "dashboard.json").read_text()) == dashboard()


def test_alerts_and_dashboard_ask_for_metrics_that_exist():
    sources = (K8S.parent / "rapid").rglob("*.py")
    text = "".join(path.read_text() for path in sources if path.name != "monitoring.py")
    known = set(re.findall(r'"(rapid_[a-z_]+)"', text))
    expressions = [alert.expression for alert in ALERTS]
    expressions += [expression for panel in PANELS for expression, _ in panel.series]
    for name in {name for expression in expressions for name in re.findall(r"rapid_[a-z_]+", expression)}:
        assert name in known or re.sub(r"_(bucket|total|sum|count)$", "", name) in known, name


LABEL = re.compile(r"[a-z]+(?=[!=]~?\")|(?<=by \()[a-z, ]+(?=\))")


def test_alerts_and_dashboard_ask_for_labels_that_exist():
    """`le` is every histogram's, `pod` is what Prometheus knows of where it asked."""
    sources = [path for path in (K8S.parent / "rapid").rglob("*.py") if path.name != "monitoring.py"]
    texts = [text for path in sources if "prometheus_client" in (text := path.read_text())]
    known = set(re.findall(r'"([a-z]+)"', "".join(texts))) | {"le", "pod"}
    expressions = [alert.expression for alert in ALERTS]
    expressions += [expression for panel in PANELS for expression, _ in panel.series]
    asked_for = {name.strip() for one in expressions for found in LABEL.findall(one) for name in found.split(",")}
    assert {"state", "class", "pool", "worker", "pipeline", "pod"} <= asked_for
    assert asked_for <= known


def test_no_alert_waits_for_a_series_that_an_empty_board_does_not_have():
    """`sum(x) == 0` never fires when x has no series at all: no worker is exactly that."""
    for alert in ALERTS:
        compared = re.findall(r"(?:sum|count)\((rapid_[a-z_]+)[^()]*\) == 0", alert.expression)
        assert not compared, alert.name
