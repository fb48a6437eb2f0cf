"""What afterburners need to know of a run that is not the night's own: its settings, its nights, and whether it goes on."""

from dataclasses import dataclass
from typing import Any

from rapid.camera.models import Camera
from rapid.campaign.plan import nights_of
from rapid.requests.archive import RequestArchive
from rapid.requests.models import RequestRecord, RequestState
from rapid.results.store import ResultsStore

N_RECENT = 1000
"""Newest requests that a new leader looks at."""

RECENT_MS = 2 * 24 * 3600 * 1000
"""Of those that have ended, the ones that ended since: as long as an afterburner may wait on the board."""

OFF = frozenset({RequestState.CANCELLED, RequestState.EXPIRED})


@dataclass(frozen=True)
class RunPlan:
    """A run, as its newest request has it.

    Attributes
    ----------
    config
        Settings that the request changed, by payload.
    is_off
        Whether it was called off, so that nothing more is to be done for it.
    record
        The request.
    """

    run: str
    request_id: str
    config: dict[str, dict[str, Any]]
    is_off: bool
    record: RequestRecord


class RunPlans:
    """Looks runs up among the requests. Methods block."""

    def __init__(self, camera: Camera, results: ResultsStore) -> None:
        self._camera = camera
        self._results = results
        self._archive = RequestArchive(results.engine)

    def of_run(self, run: str) -> RunPlan | None:
        """Return a run's plan; None if no request is known that made it."""
        return self._plan_of(self._archive.by_run(self._camera.name, run))

    def of_request(self, request_id: str) -> RunPlan | None:
        """Return the plan of the run that a request's results are stored under."""
        record = self._archive.get(self._camera.name, request_id)
        return None if record is None else self.of_run(record.run)

    def nights(self, plan: RunPlan) -> tuple[int, ...]:
        """Return the nights that a run has exposures of."""
        select = plan.record.spec.select.campaign if plan.record.spec is not None else None
        if select is None:
            return tuple(sorted({exposure_id // 100_000 for exposure_id in plan.record.members}))
        return nights_of(select, frozenset(day for day, _ in self._results.nights(self._camera.name)))

    def recent(self, now_ms: int) -> list[RunPlan]:
        """Return the runs that are under way, or ended a short while ago; newest request first."""
        found: dict[str, RunPlan] = {}
        for record in self._archive.recent(self._camera.name, N_RECENT):
            if record.state.is_final and (record.finished_ms or record.created_ms) < now_ms - RECENT_MS:
                continue
            plan = None if record.run in found else self._plan_of(record)
            if plan is not None:
                found[plan.run] = plan
        return list(found.values())

    @staticmethod
    def _plan_of(record: RequestRecord | None) -> RunPlan | None:
        if record is None or record.spec is None or not record.run or record.state is RequestState.REFUSED:
            return None
        config = {name: dict(values) for name, values in record.spec.config.items()}
        return RunPlan(record.run, record.request_id, config, record.state in OFF, record)
