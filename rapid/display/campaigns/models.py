"""What is said of campaigns over HTTP."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from rapid.campaign.records import DEADLINE_S
from rapid.requests.campaigns import CampaignAnswer, CampaignSelection
from rapid.requests.faults import BadRequestError
from rapid.requests.models import Detectors, Progress, RequestFault, RequestPriority, RequestRecord, RequestState

OF_REQUEST = ("run", "pipeline", "detectors", "config", "label", "client_key", "deadline_s")
"""What a campaign's order says beside its selection, by the names that a request has for it."""


class CampaignOrder(CampaignSelection):
    """A campaign to begin: what it selects, and the name of the run that its results are stored under."""

    run: str = Field(description="Name of the campaign: the run that its results are stored under.")
    pipeline: str | None = Field(default=None, description="What to run; by the rules if left out.")
    detectors: Detectors | None = Field(default=None, description="A pattern expression, or numbers and names.")
    config: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Settings to change, by payload.")
    label: str = Field(default="", description="For people who read the list.")
    client_key: str | None = Field(default=None, description="Asking twice with one key is asking once.")
    deadline_s: float = Field(default=DEADLINE_S, description="From acceptance until it is given up [s].")


def request_of(order: Any) -> dict[str, Any]:
    """Return the document of the request that an order stands for.

    Raises
    ------
    BadRequestError
        Raised for what is no order, and for a field that there is none of.
    """
    if not isinstance(order, Mapping):
        raise BadRequestError("campaign", "must be a JSON object")
    for name in order:
        if name == "resume" or name not in CampaignOrder.model_fields:
            raise BadRequestError(str(name)[:100], "there is no such field of a campaign")
    if not order.get("run"):
        raise BadRequestError("run", "a campaign needs a name")
    if "nights" not in order:
        raise BadRequestError("nights", "which nights?")
    document: dict[str, Any] = {name: order[name] for name in OF_REQUEST if order.get(name) is not None}
    document.setdefault("deadline_s", DEADLINE_S)
    document.setdefault("label", f"campaign {str(order['run'])[:80]}")
    selection = {name: value for name, value in order.items() if name not in OF_REQUEST}
    return {**document, "select": {"campaign": selection}, "priority": RequestPriority.BACKLOG.value}


class CampaignView(BaseModel):
    """A campaign as it stands: the newest of its requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(description="Its name: results are stored under it.")
    request_id: str
    state: RequestState
    label: str = ""
    asked_by: str = ""
    source: str = ""
    selection: CampaignSelection
    pipeline: str | None = None
    detectors: Detectors | None = None
    config: dict[str, dict[str, Any]] = Field(default_factory=dict)
    created_ms: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    deadline_ms: int | None = None
    progress: Progress = Progress()
    answer: CampaignAnswer | None = Field(default=None, description="Once it has ended.")
    error: RequestFault | None = None

    @classmethod
    def of(cls, record: RequestRecord, *, with_reasons: bool = True) -> Self:
        """Return the view of a campaign's record.

        Parameters
        ----------
        with_reasons
            Whether to tell of each exposure what is missing of it.
        """
        spec = record.spec
        if spec is None or spec.select.campaign is None:
            raise BadRequestError("run", f"{record.run} is no campaign")
        answer = record.answer.campaign if record.answer is not None else None
        if answer is not None and not with_reasons:
            answer = answer.model_copy(update={"not_done": {}})
        return cls(
            run=record.run,
            request_id=record.request_id,
            state=record.state,
            label=spec.label,
            asked_by=record.asked_by,
            source=record.source,
            selection=spec.select.campaign,
            pipeline=spec.pipeline,
            detectors=spec.detectors,
            config=spec.config,
            created_ms=record.created_ms,
            started_ms=record.started_ms,
            finished_ms=record.finished_ms,
            deadline_ms=record.deadline_ms,
            progress=record.progress,
            answer=answer,
            error=record.error,
        )


class CampaignList(BaseModel):
    """Campaigns, newest first; what is missing of single exposures is left out."""

    campaigns: list[CampaignView]


class MetricChange(BaseModel):
    """How one metric differs between two runs, over all exposures and detectors that both have."""

    metric: str
    n: int = Field(description="Values that both runs have.")
    n_outside: int = Field(description="Of these, farther apart than is allowed.")
    worst: float | None = Field(description="Largest difference over what is allowed; None if nothing is.")
    median_before: float
    median_after: float
    median_change: float


class RunFinding(BaseModel):
    """One thing that differs."""

    kind: str
    where: str
    message: str


class RunComparison(BaseModel):
    """Two runs held against each other."""

    before: str
    after: str
    nights: list[int]
    is_good: bool = Field(description="Whether nothing differs by more than is allowed.")
    n_exposures: int = Field(description="That both runs have.")
    n_values: int = Field(description="Values compared.")
    counts: dict[str, int] = Field(description="Findings, by kind.")
    metrics: list[MetricChange] = Field(description="What differs most comes first.")
    findings: list[RunFinding] = Field(description="The first thousand.")
