"""Read the Kubernetes client's objects, of which any part may be missing, into our own."""

from typing import Any

from rapid.cluster.models import Group, GroupKind, Pod

COMPONENT = "app.kubernetes.io/component"


def read_group(item: Any, kind: GroupKind) -> Group:
    """Return a Deployment or StatefulSet."""
    status = item.status
    container = _our_container(item.spec.template.spec.containers)
    settings = {one.name: one.value or "" for one in (container.env or [])} if container else {}
    rolling = getattr(getattr(item.spec, "update_strategy", None), "rolling_update", None)
    return Group(
        name=item.metadata.name,
        kind=kind,
        component=(item.metadata.labels or {}).get(COMPONENT, ""),
        image=container.image if container else "",
        wanted=1 if item.spec.replicas is None else item.spec.replicas,
        ready=(status.ready_replicas if status else 0) or 0,
        updated=(status.updated_replicas if status else 0) or 0,
        partition=(rolling.partition or 0) if rolling is not None else 0,
        generation=item.metadata.generation or 0,
        observed_generation=(status.observed_generation if status else 0) or 0,
        revision=(getattr(status, "update_revision", "") if status else "") or "",
        pools=settings.get("RAPID_POOLS", ""),
        pinned=settings.get("RAPID_PINNED", ""),
    )


def read_pod(item: Any) -> Pod:
    """Return a pod."""
    labels = item.metadata.labels or {}
    status = item.status
    states = list((status.container_statuses if status else None) or [])
    states += list((status.init_container_statuses if status else None) or [])
    conditions = {one.type: one.status for one in ((status.conditions if status else None) or [])}
    container = _our_container(item.spec.containers) if item.spec else None
    return Pod(
        name=item.metadata.name,
        uid=item.metadata.uid or "",
        group=_owner(item),
        component=labels.get(COMPONENT, ""),
        node=(item.spec.node_name if item.spec else "") or "",
        phase=(status.phase if status else "") or "",
        is_ready=conditions.get("Ready") == "True",
        is_leaving=item.metadata.deletion_timestamp is not None,
        restarts=sum(one.restart_count or 0 for one in states),
        image=container.image if container else "",
        revision=labels.get("controller-revision-hash", ""),
        started_at=status.start_time if status else None,
        reason=_trouble(states),
    )


def _owner(item: Any) -> str:
    for owner in item.metadata.owner_references or []:
        if owner.kind == "ReplicaSet":  # of a Deployment: its name and a hash
            return str(owner.name).rpartition("-")[0]
        return str(owner.name)
    return ""


def _our_container(containers: Any) -> Any:
    return next((one for one in containers or [] if one.name == "rapid"), None)


def _trouble(states: list[Any]) -> str:
    for one in states:
        waiting = getattr(one.state, "waiting", None) if one.state else None
        if waiting is not None and waiting.reason not in {None, "ContainerCreating", "PodInitializing"}:
            return str(waiting.reason)
        last = getattr(one.last_state, "terminated", None) if one.last_state else None
        if last is not None and not one.ready:
            return str(last.reason or f"exit status {last.exit_code}")
    return ""
