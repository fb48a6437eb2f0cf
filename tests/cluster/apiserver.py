"""A small Kubernetes API over real HTTP, with memory: what our client asks for, answered as a server does.

Lists, reads, strategic merge patches, the scale subresource, evictions under disruption budgets, watches with resource
versions. Faults can be ordered: the next so many answers to some path are an error, or no answer in time.
"""

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
MERGE_KEYS = ("name", "type", "mountPath")
PLURALS = {
    "deployments": ("apps/v1", "Deployment"),
    "statefulsets": ("apps/v1", "StatefulSet"),
    "pods": ("v1", "Pod"),
    "poddisruptionbudgets": ("policy/v1", "PodDisruptionBudget"),
}


@dataclass
class Fault:
    """An answer that is not what was asked for."""

    path: str
    status: int = 500
    n: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


class State:
    """All objects, and who waits for changes."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[tuple[str, str], Object] = {}
        self.log: list[tuple[int, str, str, Object]] = []
        self.version = 100
        self.oldest = 0
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.patch_types: set[str] = set()
        self.is_closed = False

    def put(self, plural: str, item: Object) -> Object:
        """Store an object as it is now; whoever watches is told."""
        with self.changed:
            name = item["metadata"]["name"]
            known = self.objects.get((plural, name))
            if known is not None and {**known, "metadata": None} == {**item, "metadata": None}:
                strip = lambda one: {k: v for k, v in one["metadata"].items() if k != "resourceVersion"}  # noqa: E731
                if strip(known) == strip(item):
                    return known
            self.version += 1
            item = copy.deepcopy(item)
            api_version, kind = PLURALS[plural]
            item.setdefault("apiVersion", api_version)
            item.setdefault("kind", kind)
            meta = item["metadata"]
            meta["resourceVersion"] = str(self.version)
            if known is not None and known.get("spec") != item.get("spec"):
                meta["generation"] = known["metadata"].get("generation", 1) + 1
            meta.setdefault("generation", 1)
            meta.setdefault("uid", f"uid-{plural}-{name}-{self.version}")
            self.objects[plural, name] = item
            self.log.append((self.version, plural, "MODIFIED" if known else "ADDED", item))
            self.changed.notify_all()
            return item

    def update(self, plural: str, name: str, change: Callable[[Object], None]) -> Object | None:
        """Change an object in place, if it is there."""
        with self.changed:
            known = self.objects.get((plural, name))
            if known is None:
                return None
            item = copy.deepcopy(known)
            change(item)
            return self.put(plural, item)

    def remove(self, plural: str, name: str) -> None:
        with self.changed:
            item = self.objects.pop((plural, name), None)
            if item is not None:
                self.version += 1
                item = copy.deepcopy(item)
                item["metadata"]["resourceVersion"] = str(self.version)
                self.log.append((self.version, plural, "DELETED", item))
                self.changed.notify_all()

    def select(self, plural: str, selector: str = "") -> list[Object]:
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        with self.changed:
            return [
                copy.deepcopy(item)
                for (kind, _), item in sorted(self.objects.items())
                if kind == plural and wanted.items() <= item["metadata"].get("labels", {}).items()
            ]

    def get(self, plural: str, name: str) -> Object | None:
        with self.changed:
            return copy.deepcopy(self.objects.get((plural, name)))

    def forget_history(self) -> None:
        """Let watches from before now be told that they are too old."""
        with self.changed:
            self.log.clear()
            self.oldest = self.version


def merge(old: Any, new: Any) -> Any:
    """Return a strategic merge: mappings by key, lists of named things by name, all else replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        merged = dict(old)
        for key, value in new.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(merged.get(key), value)
        return merged
    if isinstance(old, list) and isinstance(new, list):
        key = next((k for k in MERGE_KEYS if new and all(isinstance(n, dict) and k in n for n in new)), None)
        if key:
            by_key = {item.get(key): item for item in old}
            for item in new:
                by_key[item[key]] = merge(by_key.get(item[key]), item)
            return list(by_key.values())
    return copy.deepcopy(new)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        with self.state.changed:
            self.state.requests.append((method, self.path))
            fault = next((one for one in self.state.faults if one.n > 0 and one.path in self.path), None)
            if fault is not None:
                fault.n -= 1
        if fault is not None and fault.delay_s:
            with self.state.changed:
                self.state.changed.wait_for(lambda: self.state.is_closed, timeout=fault.delay_s)
        if fault is not None and fault.status:
            self._fail(fault.status, "ordered by the test", fault.headers)
            return
        path = [part for part in parts.path.split("/") if part]
        path = path[path.index("namespaces") + 2 :]
        plural, name, sub = (*path, "", "", "")[:3]
        if plural not in PLURALS:
            self._fail(404, f"no such thing: {parts.path}")
        elif not name and query.get("watch") in {"true", "True", "1"}:
            self._watch(plural, query)
        elif not name:
            with self.state.changed:
                items = self.state.select(plural, query.get("labelSelector", ""))
                version = str(self.state.version)
            api_version, kind = PLURALS[plural]
            self._send(
                {
                    "apiVersion": api_version,
                    "kind": f"{kind}List",
                    "metadata": {"resourceVersion": version},
                    "items": items,
                }
            )
        elif self.state.get(plural, name) is None:
            self._fail(404, f'{plural} "{name}" not found', details={"kind": plural, "name": name})
        elif method == "PATCH":
            self._patch(plural, name, sub, body)
        elif method == "POST" and sub == "eviction":
            self._evict(name, body)
        elif sub == "scale":
            self._send(_scale(self.state.get(plural, name) or {}))
        else:
            self._send(self.state.get(plural, name) or {})

    def _patch(self, plural: str, name: str, sub: str, body: Any) -> None:
        if not isinstance(body, dict):
            self._fail(400, "only merge patches are understood")
            return
        self.state.patch_types.add(str(self.headers.get("Content-Type")))
        if sub == "scale":
            body = {"spec": {"replicas": body["spec"]["replicas"]}}

        def change(item: Object) -> None:
            item["spec"] = merge(item["spec"], body.get("spec", {}))

        item = self.state.update(plural, name, change) or {}
        self._send(_scale(item) if sub == "scale" else item)

    def _evict(self, name: str, body: Object) -> None:
        with self.state.changed:
            pod = self.state.get("pods", name) or {}
            wanted = ((body.get("deleteOptions") or {}).get("preconditions") or {}).get("uid")
            if wanted and wanted != pod["metadata"]["uid"]:
                self._fail(409, "the UID in the precondition does not match")
                return
            if not _may_leave(self.state, pod):
                self._fail(429, "Cannot evict pod as it would violate the pod's disruption budget.")
                return
            mark_for_deletion(self.state, name)
        self._send({"kind": "Status", "status": "Success"}, 201)

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        after = int(query.get("resourceVersion") or 0)
        deadline = time.monotonic() + float(query.get("timeoutSeconds", "30"))
        selector = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        with self.state.changed:
            if after < self.state.oldest:
                self._fail(410, "too old resource version")
                return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in self._events(plural, after, deadline, selector):
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _events(self, plural: str, after: int, deadline: float, selector: dict[str, str]) -> Iterator[Object]:
        while True:
            with self.state.changed:
                self.state.changed.wait_for(
                    lambda after=after: self.state.is_closed or self._since(plural, after, selector),
                    timeout=max(deadline - time.monotonic(), 0.0),
                )
                news = self._since(plural, after, selector)
            if not news:
                return
            for version, kind, item in news:
                after = version
                yield {"type": kind, "object": item}

    def _since(self, plural: str, after: int, selector: dict[str, str]) -> list[tuple[int, str, Object]]:
        return [
            (version, kind, item)
            for version, where, kind, item in self.state.log
            if version > after and where == plural and selector.items() <= item["metadata"].get("labels", {}).items()
        ]

    def _fail(
        self, status: int, message: str, headers: dict[str, str] | None = None, details: Object | None = None
    ) -> None:
        document = {"kind": "Status", "status": "Failure", "code": status, "message": message, "details": details or {}}
        self._send(document, status, headers)

    def _send(self, document: Object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def _scale(item: Object) -> Object:
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": item["metadata"]["name"]},
        "spec": {"replicas": item["spec"].get("replicas", 1)},
        "status": {"replicas": item.get("status", {}).get("replicas", 0)},
    }


def mark_for_deletion(state: State, name: str) -> None:
    """Tell a pod to leave."""
    state.update("pods", name, lambda pod: pod["metadata"].setdefault("deletionTimestamp", "2026-11-20T00:00:00Z"))


def _may_leave(state: State, pod: Object) -> bool:
    """Whether every disruption budget that concerns a pod allows it to leave now."""
    labels = pod["metadata"].get("labels", {}).items()
    for budget in state.select("poddisruptionbudgets"):
        chosen = budget["spec"]["selector"]["matchLabels"]
        if not chosen.items() <= labels:
            continue
        pods = [one for one in state.select("pods") if chosen.items() <= one["metadata"]["labels"].items()]
        healthy = sum(is_ready(one) and "deletionTimestamp" not in one["metadata"] for one in pods)
        if "minAvailable" in budget["spec"]:
            least = share(budget["spec"]["minAvailable"], len(pods))
        else:
            least = len(pods) - share(budget["spec"]["maxUnavailable"], len(pods))
        if healthy - is_ready(pod) < least:
            return False
    return True


def share(value: int | str, of: int) -> int:
    """Return a number, or a percentage of one, rounded up as the API does."""
    return -(-int(str(value).rstrip("%")) * of // 100) if str(value).endswith("%") else int(value)


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


class ApiServer:
    """The API on a free port, as a context."""

    def __init__(self) -> None:
        self.state = State()
        handler = type("BoundHandler", (Handler,), {"state": self.state})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def kubeconfig(self, namespace: str) -> str:
        """Return a kubeconfig for this server."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "local",
                "contexts": [{"name": "local", "context": {"cluster": "local", "user": "me", "namespace": namespace}}],
                "clusters": [{"name": "local", "cluster": {"server": self.url}}],
                "users": [{"name": "me", "user": {"token": "secret"}}],
            }
        )

    def __enter__(self) -> "ApiServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.state.changed:
            self.state.is_closed = True
            self.state.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
