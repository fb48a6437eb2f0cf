"""Alert rules and a Grafana dashboard, made from the metrics the roles have, so that neither names one that is not there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

DASHBOARD_UID = "rapid-analysis"


@dataclass(frozen=True)
class Alert:
    """One alert rule: when, for how long, and what to do."""

    name: str
    expression: str
    for_: str
    severity: str
    summary: str
    what_to_do: str


ALERTS = (
    Alert(
        "RapidBoardAway",
        "max(rapid_board_up) == 0 or absent(rapid_board_up)",
        "1m",
        "critical",
        "The board does not answer: nothing is processed.",
        "Look at the Redis or Valkey server. Nothing is lost: the head posts what is missing when it is back.",
    ),
    Alert(
        "RapidNoLeader",
        "max(rapid_board_has_leader) == 0",
        "1m",
        "critical",
        "No head leads: raws arrive and nobody fans them out.",
        "Look at the logs of the head pods.",
    ),
    Alert(
        "RapidNoWorkers",
        # Without any worker there is no series to compare with 0.
        'max(rapid_board_up) == 1 unless sum(rapid_workers{state!="silent"}) > 0',
        "1m",
        "critical",
        "No worker gives a sign of life.",
        "rapid cluster status; are nodes full, does the image start?",
    ),
    Alert(
        "RapidSlowGather",
        "histogram_quantile(0.9, sum by (le) (rate(rapid_arrival_to_gather_seconds_bucket[10m]))) > 60",
        "5m",
        "warning",
        "Summaries come later than a minute after the first raw.",
        "rapid status: what waits? More workers (rapid cluster scale), or let the ladder shed.",
    ),
    Alert(
        "RapidBacklogGrows",
        'max(sum by (pod) (rapid_queue_jobs{class="backlog"})) > 2000 '
        'and deriv(sum(rapid_queue_jobs{class="backlog"})[30m:1m]) > 0',
        "30m",
        "warning",
        "The backlog has grown for half an hour.",
        "More backlog workers, or a smaller pattern; it expires after RAPID_BACKLOG_AGE_S.",
    ),
    Alert(
        "RapidDeadLetters",
        "max(rapid_dead_letters) > 0",
        "10m",
        "warning",
        "Jobs were given up.",
        "rapid jobs failed; rapid jobs show JOB; then retry or discard them.",
    ),
    Alert(
        "RapidQuarantine",
        "sum(increase(rapid_raws_quarantined_total[10m])) > 10",
        "0m",
        "warning",
        "Raws cannot be read.",
        "The System page lists them with their reasons.",
    ),
    Alert(
        "RapidJobsFail",
        "sum by (pipeline) (rate(rapid_jobs_failed_total[10m])) > 0.1",
        "5m",
        "warning",
        "Attempts of a pipeline fail again and again.",
        "rapid jobs failed; was a new version rolled out?",
    ),
    Alert(
        "RapidWorkerSilent",
        "max by (worker) (rapid_worker_heartbeat_age_seconds) > 60",
        "2m",
        "warning",
        "A worker has been silent for a minute; its job was given to another.",
        "rapid cluster status; a pod that hangs is restarted by its liveness probe.",
    ),
    Alert(
        "RapidLeasesLost",
        "sum(increase(rapid_leases_lost_total[10m])) > 20",
        "0m",
        "warning",
        "Workers lose their leases: they are starved of CPU, or cut off from the board.",
        "Look at CPU throttling and at the network to the board.",
    ),
)


@dataclass(frozen=True)
class Panel:
    """One panel of the dashboard: a title, a unit and its series."""

    title: str
    unit: str
    series: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def _quantiles(metric: str, *by: str) -> tuple[tuple[str, str], ...]:
    labels = ", ".join(("le", *by))
    legend = " ".join(f"{{{{{name}}}}}" for name in by)
    return tuple(
        (f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[5m])))", f"{legend} p{q * 100:.0f}".strip())
        for q in (0.5, 0.99)
    )


PANELS = (
    Panel("Board", "none", (("max(rapid_board_up)", "up"), ("max(rapid_board_has_leader)", "leader")), "stat"),
    Panel("Dead letters", "none", (("max(rapid_dead_letters)", "dead letters"),), "stat"),
    Panel("Workers", "none", (("max by (state) (rapid_workers)", "{{state}}"),)),
    Panel("Waiting jobs", "none", (("max by (pool, class) (rapid_queue_jobs)", "{{pool}} {{class}}"),)),
    Panel("First raw to summary", "s", _quantiles("rapid_arrival_to_gather_seconds", "pipeline")),
    Panel("Raw to post", "s", _quantiles("rapid_arrival_to_dispatch_seconds")),
    Panel("Wait in the queue", "s", _quantiles("rapid_queue_wait_seconds", "priority")),
    Panel("Run time of pipelines", "s", _quantiles("rapid_job_run_seconds", "pipeline")),
    Panel("Run time of payloads", "s", _quantiles("rapid_payload_run_seconds", "payload")),
    Panel("Gather", "s", _quantiles("rapid_gather_run_seconds", "reason")),
    Panel("CPU used by jobs", "none", (("sum by (pipeline) (rate(rapid_job_cpu_seconds_total[5m]))", "{{pipeline}} cores"),)),
    Panel("Peak memory of jobs", "bytes", _quantiles("rapid_job_peak_memory_bytes", "pipeline")),
    Panel("Raws", "none", (
        ("sum(rate(rapid_arrivals_total[5m]))", "arrived /s"),
        ("sum by (code) (rate(rapid_raws_quarantined_total[5m]))", "quarantined {{code}} /s"),
    )),
    Panel("Failures", "none", (
        ("sum by (pipeline, code) (rate(rapid_jobs_failed_total[5m]))", "{{pipeline}} {{code}} /s"),
        ("sum(rate(rapid_leases_lost_total[5m]))", "leases lost /s"),
        ("sum(rate(rapid_preemptions_total[5m]))", "pre-emptions /s"),
    )),
)  # fmt: skip


def alert_rules(alerts: Iterable[Alert] = ALERTS) -> dict[str, Any]:
    """Return a PrometheusRule."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "rapid"},
        "spec": {
            "groups": [
                {
                    "name": "rapid",
                    "rules": [
                        {
                            "alert": alert.name,
                            "expr": alert.expression,
                            "for": alert.for_,
                            "labels": {"severity": alert.severity},
                            "annotations": {"summary": alert.summary, "description": alert.what_to_do},
                        }
                        for alert in alerts
                    ],
                }
            ]
        },
    }


def alert_rules_yaml() -> str:
    """Return the alert rules as the file below k8s/components/monitoring."""
    head = "# Made by `rapid cluster monitoring`; change rapid/cluster/monitoring.py instead.\n"
    return head + yaml.safe_dump(alert_rules(), sort_keys=False, width=160)


def dashboard(panels: Iterable[Panel] = PANELS) -> dict[str, Any]:
    """Return a Grafana dashboard: two panels a row, the Prometheus source chosen on the page."""
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "uid": DASHBOARD_UID,
        "title": "Rapid Analysis",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": [
            {
                "id": number + 1,
                "title": panel.title,
                "type": panel.kind,
                "datasource": source,
                "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": source}
                    for place, (expression, legend) in enumerate(panel.series)
                ],
            }
            for number, panel in enumerate(panels)
        ],
    }
