"""A node and its controllers, emulated: pods of our manifests as local processes.

Each container's command line, environment, mounted secrets, probes and grace period are those of the manifest; what an
image, a network and a kernel's namespaces would do is not: paths of volumes are moved into a folder of the pod, and each
pod gets a port of its own in place of 9090. StatefulSets are kept as the real controller keeps them: parallel, rolling
updates from the last ordinal down to the partition, at most so many unavailable.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.apiserver import Object, State, is_ready, mark_for_deletion, share

ENTRYPOINT = [sys.executable, "-m", "rapid"]
"""As in the Dockerfile."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def revision_of(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


class PodProcess:
    """One pod: its process, its probes, its end."""

    def __init__(self, node: "Node", name: str, spec: Object) -> None:
        self.node, self.name, self.spec = node, name, spec
        self.folder = node.folder / "pods" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.restarts = 0
        self.is_stopping = threading.Event()
        self.status: int | None = None
        self.forced = False
        self.thread = threading.Thread(target=self._live, name=f"pod {name}", daemon=True)
        self.container = next(one for one in spec["containers"] if one["name"] == "rapid")
        self.mounts = self._mount()

    def _mount(self) -> dict[str, Path]:
        """Make what the volumes hold; return where each mount path really is."""
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        found = {}
        for mount in self.container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "persistentVolumeClaim" in volume:
                place = self.node.folder / "claims" / volume["persistentVolumeClaim"]["claimName"]
            else:
                place = self.folder / mount["name"]
            place.mkdir(parents=True, exist_ok=True)
            if "secret" in volume:
                secret = self.node.secrets[volume["secret"]["secretName"]]
                for item in volume["secret"]["items"]:
                    (place / item["path"]).write_text(secret[item["key"]])
            found[mount["mountPath"]] = place
        return found

    def _moved(self, text: str) -> str:
        for path, place in sorted(self.mounts.items(), key=lambda one: -len(one[0])):
            if text == path or text.startswith(f"{path}/"):
                return f"{place}{text[len(path) :]}"
        return text

    def environment(self) -> dict[str, str]:
        """Return the container's environment, as the kubelet would make it."""
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.node.config_maps[source["configMapRef"]["name"]]
            elif source["secretRef"]["name"] in self.node.secrets:
                found |= self.node.secrets[source["secretRef"]["name"]]
        for item in self.container.get("env", []):
            if "value" in item:
                found[item["name"]] = item["value"]
            elif "fieldRef" in item["valueFrom"]:
                assert item["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
                found[item["name"]] = self.name
            else:
                ref = item["valueFrom"]["secretKeyRef"]
                secret = self.node.secrets.get(ref["name"], {})
                if ref["key"] in secret:
                    found[item["name"]] = secret[ref["key"]]
        # The image brings compiled kernels; here they are those of this checkout, where numba put them.
        found.pop("NUMBA_CACHE_DIR", None)
        found = {name: self._moved(value) for name, value in found.items()}
        return found | self.node.machine_environment | {"RAPID_METRICS_PORT": str(self.port)}

    def start(self) -> None:
        self.thread.start()

    def _live(self) -> None:
        while not self.is_stopping.is_set():
            process = self._spawn()
            self._probe_while_running(process)
            if self.is_stopping.is_set():
                self._end(process)
                break
            self.restarts += 1
            self.node.set_status(self, ready=False)
            self.is_stopping.wait(0.5)
        self.node.gone(self)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        arguments = [self._moved(one) for one in self.container["args"]]
        if "8080" in arguments:
            arguments[arguments.index("8080")] = str(self.port)
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*ENTRYPOINT, *arguments], env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def _probe_while_running(self, process: "subprocess.Popen[bytes]") -> None:
        probes = {kind: self.container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")}
        began, started = time.monotonic(), False
        while not self.is_stopping.is_set() and process.poll() is None:
            if not started:
                started = self._ask(probes["startup"])
                limit = self.container["startupProbe"]["failureThreshold"] * 1.0 + 60.0
                if not started and time.monotonic() - began > limit:
                    process.kill()
            self.node.set_status(self, ready=started and self._ask(probes["readiness"]))
            self.is_stopping.wait(0.25)

    def _ask(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=3) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        """SIGTERM, the grace period, SIGKILL."""
        self.node.set_status(self, ready=False)
        process.terminate()
        try:
            self.status = process.wait(self.spec["terminationGracePeriodSeconds"])
        except subprocess.TimeoutExpired:
            self.forced = True
            os.killpg(process.pid, signal.SIGKILL)
            self.status = process.wait()


class Node:
    """Keeps the pods of all StatefulSets and Deployments of a cluster's state."""

    def __init__(
        self, state: State, objects: tuple[Object, ...], folder: Path, secrets: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.state, self.folder = state, folder
        self.secrets = {name: dict(values) for name, values in secrets.items()}
        self.config_maps = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
        keep = (
            "PATH",
            "HOME",
            "LANG",
            "RAPID_CAMERA_PATH",
            "RAPID_PIPELINE_PATH",
            "NUMBA_CACHE_DIR",
            "COVERAGE_PROCESS_START",
        )
        self.machine_environment = {name: os.environ[name] for name in keep if name in os.environ}
        self.running: dict[str, PodProcess] = {}
        self.ended: list[PodProcess] = []
        self.most_away = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="node", daemon=True)
        for item in objects:
            plural = {
                "StatefulSet": "statefulsets",
                "Deployment": "deployments",
                "PodDisruptionBudget": "poddisruptionbudgets",
            }
            # The server of the board is a real one beside the node; its image is not ours.
            if item["kind"] in plural and item["metadata"]["name"] != "rapid-valkey":
                state.put(plural[item["kind"]], item)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End all pods at once."""
        self._stop.set()
        with self.state.changed:
            self.state.changed.notify_all()
        self._thread.join(30)
        for pod in list(self.running.values()):
            pod.is_stopping.set()
        for pod in list(self.running.values()):
            pod.thread.join(90)

    def _keep(self) -> None:
        seen = -1
        while not self._stop.is_set():
            with self.state.changed:
                self.state.changed.wait_for(
                    lambda seen=seen: self._stop.is_set() or self.state.version != seen, timeout=1.0
                )
                seen = self.state.version
                for plural in ("statefulsets", "deployments"):
                    for item in self.state.select(plural):
                        self._reconcile(plural, item)

    def _reconcile(self, plural: str, item: Object) -> None:
        name, spec = item["metadata"]["name"], item["spec"]
        revision = revision_of(spec["template"])
        old = item.get("status", {}).get("currentRevision", revision)
        rolling = spec.get("updateStrategy", {}).get("rollingUpdate", {}) if plural == "statefulsets" else {}
        first = rolling.get("partition", 0)
        wanted = [f"{name}-{place}" for place in range(spec.get("replicas", 1))]
        pods = {
            pod["metadata"]["name"]: pod
            for pod in self.state.select("pods")
            if pod["metadata"]["ownerReferences"][0]["name"] == name
        }
        for pod_name, pod in pods.items():
            if pod_name not in wanted:
                mark_for_deletion(self.state, pod_name)
            if "deletionTimestamp" in (self.state.get("pods", pod_name) or pod)["metadata"]:
                running = self.running.get(pod_name)
                if running is not None:
                    running.is_stopping.set()
        for place, pod_name in enumerate(wanted):
            if pod_name not in pods:
                is_new = plural == "deployments" or place >= first or old == revision
                self._create(item, plural, pod_name, revision if is_new else old)
        self._roll(plural, wanted, pods, revision, first, rolling)
        current = [pod for pod in self.state.select("pods") if pod["metadata"]["ownerReferences"][0]["name"] == name]
        ready = [pod for pod in current if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
        updated = [pod for pod in current if pod["metadata"]["labels"]["controller-revision-hash"] == revision]
        done = len(updated) == len(wanted) == len(current)

        def tell(one: Object) -> None:
            one["status"] = {
                "observedGeneration": item["metadata"]["generation"],
                "replicas": len(current),
                "readyReplicas": len(ready),
                "updatedReplicas": len(updated),
                "updateRevision": revision,
                "currentRevision": revision if done else old,
            }

        if plural == "statefulsets" and item.get("status"):
            self.most_away = (
                max(self.most_away, len(wanted) - len(ready)) if old != revision or not done else self.most_away
            )
        self.state.update(plural, name, tell)

    def _roll(
        self, plural: str, wanted: list[str], pods: Mapping[str, Object], revision: str, first: int, rolling: Object
    ) -> None:
        """Replace pods of an older version, last ordinal first, as many at a time as may be away."""
        at_most = max(share(rolling.get("maxUnavailable", 1), len(wanted)), 1)
        away = sum(
            name not in pods or not is_ready(pods[name]) or "deletionTimestamp" in pods[name]["metadata"]
            for name in wanted
        )
        for place in range(len(wanted) - 1, -1, -1):
            pod = pods.get(wanted[place])
            if pod is None or pod["metadata"]["labels"]["controller-revision-hash"] == revision:
                continue
            if plural == "statefulsets" and place < first:
                continue
            if "deletionTimestamp" in pod["metadata"] or away >= at_most:
                continue
            mark_for_deletion(self.state, wanted[place])
            away += 1

    def _create(self, owner: Object, plural: str, name: str, revision: str) -> None:
        if name in self.running:
            return  # the last one of this name has not ended yet
        templates = getattr(self, "_templates", {})
        templates.setdefault(revision_of(owner["spec"]["template"]), owner["spec"]["template"])
        self._templates: dict[str, Object] = templates
        template = templates[revision]
        pod = PodProcess(self, name, template["spec"])
        self.running[name] = pod
        labels = {**template["metadata"]["labels"], "controller-revision-hash": revision}
        self.state.put(
            "pods",
            {
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "ownerReferences": [
                        {
                            "apiVersion": "apps/v1",
                            "kind": "StatefulSet" if plural == "statefulsets" else "Deployment",
                            "name": name.rpartition("-")[0],
                            "uid": "u",
                        }
                    ],
                },
                "spec": {**template["spec"], "nodeName": "local"},
                "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]},
            },
        )
        pod.start()

    def set_status(self, pod: PodProcess, *, ready: bool) -> None:
        """Tell the API how a pod is."""

        def change(item: Object) -> None:
            item["status"] = {
                "phase": "Running",
                "startTime": item["status"].get("startTime", "2026-11-20T00:00:00Z"),
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [{
                    "name": "rapid", "ready": ready, "restartCount": pod.restarts, "image": pod.container["image"],
                    "imageID": "", "state": {"running": {"startedAt": "2026-11-20T00:00:00Z"}},
                }],
            }  # fmt: skip

        self.state.update("pods", pod.name, change)

    def gone(self, pod: PodProcess) -> None:
        """Take an ended pod off."""
        with self.state.changed:
            self.running.pop(pod.name, None)
            self.ended.append(pod)
            self.state.remove("pods", pod.name)

    def logs(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(
            f"== {path.parent.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("pods/*/log"))
        )


def image_of(pod: Object) -> Any:
    """Return the image of a pod's container."""
    return next(one["image"] for one in pod["spec"]["containers"] if one["name"] == "rapid")
