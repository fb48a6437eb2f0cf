"""The Kubernetes API, as far as we need it: bounded, patient with conflicts and crowds, and watched rather than polled."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import structlog
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from rapid.cluster.models import Group, GroupKind, Pod
from rapid.cluster.reading import read_group, read_pod
from rapid.errors import ConfigurationError, NotFoundError, RefusedError, Retry, StoreError

log = structlog.get_logger()

PART_OF = "app.kubernetes.io/part-of=rapid"
REQUEST_S = 10.0
ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
CONFLICT, GONE, CROWDED = 409, 410, 429
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

HINTS = {
    401: "; the token of the kubeconfig is not, or no longer, accepted: log in again",
    403: "; roles rapid-observer and rapid-operator (k8s/components/operator) hold what is needed",
}

T = TypeVar("T")


class NotNowError(RefusedError):
    """A disruption budget does not let a pod go for the moment."""

    code = "disruption_budget"
    retry = Retry.LATER


class Cluster:
    """Our pods in one namespace.

    Parameters
    ----------
    namespace
        Where they are.
    api
        A configured client; see `connect`.
    request_s
        How long one request may take [s].
    attempts
        How often a request is made before it is given up, if the server is away, crowded or in conflict.
    """

    def __init__(
        self, namespace: str, api: client.ApiClient, *, request_s: float = REQUEST_S, attempts: int = ATTEMPTS
    ) -> None:
        self.namespace = namespace
        self._apps = client.AppsV1Api(api)
        self._core = client.CoreV1Api(api)
        self._request_s = request_s
        self._attempts = attempts
        self._never = threading.Event()

    # Looking

    def groups(self) -> list[Group]:
        """Return the Deployments and StatefulSets of the framework, by name.

        Raises
        ------
        StoreError
            Raised if the API does not answer.
        RefusedError
            Raised if we may not ask.
        """
        deployments = self._call(
            lambda: self._apps.list_namespaced_deployment(self.namespace, label_selector=PART_OF, **self._limits)
        )
        sets = self._call(
            lambda: self._apps.list_namespaced_stateful_set(self.namespace, label_selector=PART_OF, **self._limits)
        )
        found = [read_group(item, GroupKind.DEPLOYMENT) for item in deployments.items]
        found += [read_group(item, GroupKind.STATEFUL_SET) for item in sets.items]
        return sorted(found, key=lambda group: group.name)

    def group(self, name: str) -> Group:
        """Return one StatefulSet of the framework.

        Raises
        ------
        NotFoundError
            Raised if there is none of this name.
        """
        item = self._call(lambda: self._apps.read_namespaced_stateful_set(name, self.namespace, **self._limits))
        return read_group(item, GroupKind.STATEFUL_SET)

    def size(self, name: str) -> int:
        """Return how many pods a StatefulSet should have, by its scale: what a controller may ask for."""
        read = self._apps.read_namespaced_stateful_set_scale
        spec = self._call(lambda: read(name, self.namespace, **self._limits)).spec
        return int((spec.replicas if spec else 0) or 0)

    def pods(self) -> list[Pod]:
        """Return the pods of the framework, by name, numbers in their order."""
        return self._pods()[0]

    def wait_for(self, is_there: Callable[[list[Pod], list[Group]], bool], *, timeout_s: float, what: str) -> None:
        """Wait until pods and groups are as wanted; wakes on what the API tells, and looks again then.

        Raises
        ------
        StoreError
            Raised if they are not in time, saying ``what`` was waited for.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            pods, version = self._pods()
            if is_there(pods, self.groups()):
                return
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise StoreError(f"{what}: not within {timeout_s:.0f} s")
            self._wait_for_change(version, remaining)

    def _pods(self) -> tuple[list[Pod], str]:
        listed = self._call(
            lambda: self._core.list_namespaced_pod(self.namespace, label_selector=PART_OF, **self._limits)
        )
        pods = sorted((read_pod(item) for item in listed.items), key=lambda pod: (len(pod.name), pod.name))
        return pods, str((listed.metadata.resource_version if listed.metadata else "") or "")

    def _wait_for_change(self, version: str, timeout_s: float) -> None:
        """Return when a pod has changed since a version, or the watch has ended, in time or by a fault."""
        # A pod's last change comes a moment before its group's own count: look again soon even if no pod changes.
        timeout_s = min(timeout_s, self._request_s)
        watching = watch.Watch()  # type: ignore[no-untyped-call]
        try:
            for _event in watching.stream(  # type: ignore[no-untyped-call]
                self._core.list_namespaced_pod,
                self.namespace,
                label_selector=PART_OF,
                resource_version=version,
                timeout_seconds=max(round(timeout_s), 1),
                _request_timeout=(self._request_s, timeout_s + self._request_s),
            ):
                watching.stop()  # type: ignore[no-untyped-call]
        except ApiException as error:
            if error.status != GONE:
                log.warning("watch ended", status=error.status)
                self._never.wait(min(FIRST_PAUSE_S, timeout_s))
        except (HTTPError, OSError, json.JSONDecodeError) as error:
            log.warning("watch ended", error=str(error))
            self._never.wait(min(FIRST_PAUSE_S, timeout_s))

    # Changing

    def scale(self, name: str, replicas: int) -> None:
        """Set how many pods a StatefulSet should have."""
        body = {"spec": {"replicas": replicas}}
        patch = self._apps.patch_namespaced_stateful_set_scale
        self._call(lambda: patch(name, self.namespace, body, **self._limits))

    def set_version(
        self, name: str, *, image: str | None = None, stamp: str | None = None, partition: int | None = None
    ) -> None:
        """Give a StatefulSet another image, or the same again as a new version, for ordinals from ``partition`` on.

        All in one patch, so that no pod is replaced under the partition of before.
        """
        spec: dict[str, Any] = {}
        if partition is not None:
            spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}
        template: dict[str, Any] = {}
        if image is not None:
            # The image was made with its own compiled kernels: what prepares them must be of the same one.
            template["spec"] = {
                "containers": [{"name": "rapid", "image": image}],
                "initContainers": [{"name": "kernels", "image": image}],
            }
        if stamp is not None:
            template["metadata"] = {"annotations": {"rapid/restarted-at": stamp}}
        if template:
            spec["template"] = template
        patch = self._apps.patch_namespaced_stateful_set
        self._call(lambda: patch(name, self.namespace, {"spec": spec}, **self._limits))

    def evict(self, pod: Pod) -> None:
        """Ask a pod to leave, as far as its disruption budget allows; it drains.

        Raises
        ------
        NotNowError
            Raised, without another attempt, if the budget does not allow it now.
        RefusedError
            Raised if another pod has its name by now, or we may not ask.
        """
        body = client.V1Eviction(
            metadata=client.V1ObjectMeta(name=pod.name, namespace=self.namespace),
            delete_options=client.V1DeleteOptions(
                preconditions=client.V1Preconditions(uid=pod.uid) if pod.uid else None
            ),
        )
        with contextlib.suppress(NotFoundError):  # it has gone by itself
            self._call(
                lambda: self._core.create_namespaced_pod_eviction(pod.name, self.namespace, body, **self._limits),
                is_eviction=True,
            )

    # How we ask

    @property
    def _limits(self) -> dict[str, Any]:
        return {"_request_timeout": (self._request_s, self._request_s)}

    def _call(self, ask: Callable[[], T], *, is_eviction: bool = False) -> T:
        for attempt, pause_s in enumerate(self._pauses(), start=1):
            is_last = attempt == self._attempts
            try:
                return ask()
            except ApiException as error:
                status = int(error.status or 0)
                if is_eviction and status == CROWDED:
                    raise NotNowError(_reason(error)) from error
                if status in {CONFLICT, CROWDED} or status >= 500:
                    if is_last:
                        if status in {CONFLICT, CROWDED}:
                            raise RefusedError(f"the Kubernetes API refuses ({status}): {_reason(error)}") from error
                        raise StoreError(f"the Kubernetes API fails ({status}): {_reason(error)}") from error
                    asked = _retry_after(error)
                    pause_s = pause_s if asked is None else asked
                elif status == 404:
                    kind, name = _missing(error)
                    raise NotFoundError(kind, name, owner=f"namespace {self.namespace}") from error
                else:
                    message = f"the Kubernetes API refuses ({status}): {_reason(error)}{HINTS.get(status, '')}"
                    raise RefusedError(message) from error
            except (HTTPError, OSError) as error:
                if is_last:
                    where = self._core.api_client.configuration.host
                    raise StoreError(f"the Kubernetes API at {where} does not answer: {_why(error)}") from error
            log.info("Kubernetes API asked again", attempt=attempt, pause_s=round(pause_s, 2))
            self._never.wait(pause_s)
        raise StoreError("the Kubernetes API was never asked")  # attempts < 1

    def _pauses(self) -> Iterator[float]:
        for number in range(self._attempts):
            yield min(FIRST_PAUSE_S * 2.0**number, LONGEST_PAUSE_S)


def connect(context: str = "") -> client.ApiClient:
    """Return a client of the cluster we run in, else of the one that the kubeconfig names.

    Raises
    ------
    ConfigurationError
        Raised if neither is there.
    """
    configuration = client.Configuration()
    try:
        if context:
            raise config.ConfigException("a context was asked for")
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            config.load_kube_config(context=context or None, client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise ConfigurationError("kubeconfig", f"no cluster to talk to: {error}") from error
    # Attempts are counted here, where their reason is known.
    configuration.retries = False
    return client.ApiClient(configuration)


def own_namespace(context: str = "") -> str:
    """Return the namespace of the pod we run in, else of the kubeconfig's context, else ``rapid``."""
    with contextlib.suppress(OSError):
        return OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    with contextlib.suppress(config.ConfigException, OSError):
        contexts, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        chosen = next((one for one in contexts if one["name"] == context), active)
        return str(chosen["context"].get("namespace") or "rapid")
    return "rapid"


def _retry_after(error: ApiException) -> float | None:
    text = (error.headers or {}).get("Retry-After", "")
    try:
        return min(max(float(text), 0.0), LONGEST_PAUSE_S)
    except (TypeError, ValueError):
        return None


def _why(error: BaseException) -> str:
    """Return what kept an answer away: urllib3 wraps the cause, and repeats address and path in its own text."""
    return f"{type(error).__name__} {str(error).rpartition(': ')[2]}"[:200]


def _missing(error: ApiException) -> tuple[str, str]:
    """Return kind and name of what is not there."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        details = json.loads(error.body or "")["details"]
        return str(details["kind"]), str(details["name"])
    return "object", _reason(error)


def _reason(error: ApiException) -> str:
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return str(json.loads(error.body or "").get("message") or error.reason)[:300]
    return str(error.reason)[:300]
