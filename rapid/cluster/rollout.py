"""Replace pods: all anew, a few elsewhere, or by a new version that one raft tries first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rapid.camera.models import Camera
from rapid.cluster.api import Cluster, NotNowError
from rapid.cluster.compare import Comparison
from rapid.cluster.models import Group, Pod
from rapid.errors import RapidError, RefusedError, StoreError
from rapid.patterns.placement import pinned_detectors

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Canary:
    """The last pods of a group, which get a new version first, and the detectors they own.

    Attributes
    ----------
    detectors
        Empty if the group's workers are not pinned by their place: then nothing can be compared by detector.
    """

    n_pods: int
    detectors: frozenset[int]


@dataclass(frozen=True)
class RolloutResult:
    """How a roll-out ended."""

    is_done: bool
    comparison: Comparison | None = None
    reason: str = ""


def canary_of(group: Group, camera: Camera) -> Canary:
    """Return the last pods of a group that together own one whole raft; the last pod, if it is pinned to nothing.

    Raises
    ------
    ConfigurationError
        Raised if the group's pinning cannot be read.
    """
    if not group.pinned.startswith("ordinal/") or group.wanted == 0:
        return Canary(min(1, group.wanted), frozenset())
    shares = [pinned_detectors(group.pinned, camera, f"{group.name}-{place}") for place in range(group.wanted)]
    rafts = {detector.id: detector.raft for detector in camera.detectors}
    last = rafts[max(max(share, default=-1) for share in shares)]
    raft = {detector for share in shares for detector in share if rafts[detector] == last}
    n_pods, owned = 0, frozenset[int]()
    while not raft <= owned:
        n_pods += 1
        owned |= shares[group.wanted - n_pods]
    return Canary(n_pods, owned)


def wait_until_settled(cluster: Cluster, name: str, *, timeout_s: float, first: int = 0) -> None:
    """Wait until a group's pods are ready and of the version they should be, and those too many have left.

    Parameters
    ----------
    first
        Ordinal of the first pod that should have the newest version.

    Raises
    ------
    StoreError
        Raised if they are not in time, with what is wrong with them.
    """
    odd: list[str] = []

    def is_settled(pods: list[Pod], groups: list[Group]) -> bool:
        group = next((one for one in groups if one.name == name), None)
        ours = [pod for pod in pods if pod.group == name]
        odd[:] = [
            f"{pod.name}: {pod.reason or ('leaving' if pod.is_leaving else pod.phase)}"
            for pod in ours
            if pod.is_leaving or not pod.is_ready
        ]
        if group is None or not group.is_settled or len(ours) != group.wanted:
            return False
        new = [pod for pod in ours if _ordinal(pod) >= first]
        return not odd and all(pod.revision in {group.revision, ""} for pod in new)

    try:
        cluster.wait_for(is_settled, timeout_s=timeout_s, what=f"{name} settled")
    except StoreError as error:
        details = f" ({', '.join(odd[:5])})" if odd else ""
        raise StoreError(f"{error.message}{details}") from error


def restart(cluster: Cluster, name: str, *, stamp: str, timeout_s: float) -> None:
    """Replace every pod of a group, a few at a time; each finishes its job, or gives it back."""
    cluster.set_version(name, stamp=stamp, partition=0)
    wait_until_settled(cluster, name, timeout_s=timeout_s)


def drain(cluster: Cluster, pods: Sequence[Pod], *, timeout_s: float, tell: Tell) -> None:
    """Ask pods to leave, each as soon as its disruption budget allows, and wait until all have.

    Raises
    ------
    RefusedError
        Raised if a budget has not allowed it in time.
    StoreError
        Raised if they are not gone in time.
    """
    waiting, held = list(pods), dict[str, str]()
    leaving = {pod.uid or pod.name for pod in pods}

    def are_gone(now: list[Pod], _groups: list[Group]) -> bool:
        for pod in list(waiting):
            try:
                cluster.evict(pod)
            except NotNowError as error:
                if pod.name not in held:
                    tell(f"{pod.name} waits: {error.message}")
                held[pod.name] = error.message
                continue
            waiting.remove(pod)
            tell(f"{pod.name} is told to leave")
        return not waiting and not leaving & {pod.uid or pod.name for pod in now}

    try:
        cluster.wait_for(are_gone, timeout_s=timeout_s, what=f"{len(pods)} pods gone")
    except StoreError as error:
        if waiting:
            names = ", ".join(pod.name for pod in waiting)
            raise RefusedError(f"{error.message}; {names} may not leave: {held[waiting[0].name]}") from error
        raise


def roll_out(
    cluster: Cluster,
    group: Group,
    image: str,
    canary: Canary,
    observe: Callable[[frozenset[int]], Comparison | None],
    *,
    timeout_s: float,
    tell: Tell,
) -> RolloutResult:
    """Give a group another image: one raft first, then, if it does as well as before, the rest; else back.

    Parameters
    ----------
    observe
        Compares the canary's detectors before and after, once there is enough to compare; None: nothing to compare.
    """
    first = max(group.wanted - canary.n_pods, 0)
    tell(f"{group.name}: {canary.n_pods} of {group.wanted} pods first, {len(canary.detectors)} detectors")
    cluster.set_version(group.name, image=image, partition=first)
    comparison = None
    try:
        wait_until_settled(cluster, group.name, timeout_s=timeout_s, first=first)
        comparison = observe(canary.detectors)
        reason = "" if comparison is None or comparison.is_good else "; ".join(comparison.findings)
    except RapidError as error:
        reason = error.message
    if reason:
        tell(f"{group.name}: back to {group.image}: {reason}")
        cluster.set_version(group.name, image=group.image, partition=0)
        wait_until_settled(cluster, group.name, timeout_s=timeout_s)
        return RolloutResult(False, comparison, reason)
    tell(f"{group.name}: the first do as well as before; now the rest")
    cluster.set_version(group.name, partition=0)
    wait_until_settled(cluster, group.name, timeout_s=timeout_s)
    return RolloutResult(True, comparison)


def _ordinal(pod: Pod) -> int:
    last = pod.name.rpartition("-")[2]
    return int(last) if last.isdigit() else 0
