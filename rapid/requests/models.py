"""What a request says, what became of it, and what is answered.

`RequestSpec` is the one schema, whatever door it comes in by; `rapid request schema` prints it. `RequestRecord` is the
document that everybody reads: the request as it was understood, its state, its progress, and in the end its answer.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rapid.exposure.models import ImageType
from rapid.pipeline.models import NAME as PIPELINE_NAME
from rapid.requests.answers import RequestAnswer
from rapid.requests.completion import OnMissing
from rapid.requests.message import Message
from rapid.requests.selection import Selection

MAX_DEADLINE_S = 7 * 86400.0
DEFAULT_DEADLINE_S = 3600.0

KEY = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
RUN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
REQUEST_ID = r"^[0-9]{1,20}-[0-9]{1,20}$"

PROMPT = "prompt"
"""The run of what the head processes by itself."""


class Combine(StrEnum):
    """What is made of all exposures together."""

    FOCUS_SWEEP = "focus_sweep"
    DONUT_PAIR = "donut_pair"
    BUILD_BIAS = "build_bias"
    BUILD_DARK = "build_dark"
    BUILD_FLAT = "build_flat"
    BUILD_PTC = "build_ptc"
    BUILD_LINEARITY = "build_linearity"
    BUILD_CROSSTALK = "build_crosstalk"
    BUILD_DEFECTS = "build_defects"

    @property
    def builds(self) -> str | None:
        """Kind of calib that is built and verified; None if none is."""
        return self.value.removeprefix("build_") if self.value.startswith("build_") else None

    @property
    def input_types(self) -> frozenset[ImageType]:
        """Image types that it is built of; none for what builds no calib."""
        return _BUILT_OF.get(self.value, frozenset())

    @property
    def least(self) -> int:
        """Fewest exposures."""
        return {"focus_sweep": 4, "build_ptc": 8, "build_linearity": 4, "build_crosstalk": 1}.get(self.value, 2)


_BUILT_OF = {
    "build_bias": frozenset({ImageType.BIAS}),
    "build_dark": frozenset({ImageType.DARK}),
    "build_flat": frozenset({ImageType.FLAT}),
    "build_ptc": frozenset({ImageType.FLAT}),
    "build_linearity": frozenset({ImageType.FLAT}),
    "build_crosstalk": frozenset({ImageType.SPOT, ImageType.FLAT, ImageType.SCIENCE, ImageType.ENGTEST, ImageType.ACQ}),
    "build_defects": frozenset({ImageType.DARK, ImageType.FLAT}),
}


class RequestPriority(StrEnum):
    """When the jobs of a request are taken."""

    URGENT = "urgent"
    """As if it were the newest exposure."""

    NORMAL = "normal"
    """By the time of the exposure, as those of the night: newest first."""

    BACKLOG = "backlog"
    """After everything else."""


Detectors = (
    Annotated[str, Field(min_length=1, max_length=4096)]
    | Annotated[tuple[Annotated[int | str, Field()], ...], Field(min_length=1, max_length=1000)]
)


class RequestSpec(Message):
    """A request, version 1 of the schema."""

    version: Literal[1] = Field(default=1, description="Of this schema.")
    select: Selection = Field(description="Which exposures.")
    detectors: Detectors | None = Field(
        default=None,
        description="A pattern expression, or a list of numbers and names; all science detectors if left out.",
    )
    pipeline: str | None = Field(
        default=None, pattern=PIPELINE_NAME, max_length=64, description="What to run; by the rules if left out."
    )
    config: dict[str, dict[str, Any]] = Field(
        default_factory=dict, max_length=50, description="Settings to change, by payload: {isr: {flat: false}}."
    )
    combine: Combine | None = Field(default=None, description="What to make of all exposures together.")
    priority: RequestPriority = RequestPriority.NORMAL
    deadline_s: float = Field(
        default=DEFAULT_DEADLINE_S, gt=0, le=MAX_DEADLINE_S, description="From acceptance until it is given up [s]."
    )
    when_whole: bool = Field(
        default=False,
        description="Begin nothing before all exposures are there, with the raw of every detector that was read out.",
    )
    arrival_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="How long to wait for exposures and their raws, from acceptance [s]; to the deadline if left out.",
    )
    on_missing: OnMissing = Field(
        default=OnMissing.ANSWER,
        description="After arrival_s: answer what is missing and end, or process what is there and say what is missing.",
    )
    guaranteed: bool = Field(
        default=False, description="Process the exposures on every detector, whatever pattern is in force."
    )
    reuse: bool = Field(
        default=True,
        description="Take what the night's own processing gives, where it is what is asked for; false processes anew.",
    )
    run: str | None = Field(
        default=None,
        pattern=RUN,
        description="Name under which results are stored; made from the request's id if left out.",
    )
    label: str = Field(default="", max_length=200, description="For people who read the list.")
    client_key: str | None = Field(default=None, pattern=KEY, description="Asking twice with one key is asking once.")

    @model_validator(mode="after")
    def _consistent(self) -> "RequestSpec":
        if self.select.affected is not None:
            for name in ("detectors", "pipeline", "config", "combine", "run", "guaranteed"):
                if getattr(self, name):
                    raise ValueError(f"{name}: results are done again as they were done, in their place")
        if self.select.calibs is not None:
            for name in ("detectors", "pipeline", "config", "combine", "run", "guaranteed"):
                if getattr(self, name):
                    raise ValueError(f"{name}: calibs are named, and nothing is processed")
        if self.select.affected is not None or self.select.calibs is not None:
            for name in ("when_whole", "arrival_s"):
                if getattr(self, name):
                    raise ValueError(f"{name}: no exposures are waited for")
        if self.on_missing is OnMissing.PROCESS and self.arrival_s is None:
            raise ValueError("arrival_s: say how long to wait before what is there is processed")
        if self.arrival_s is not None and self.arrival_s >= self.deadline_s:
            raise ValueError(f"arrival_s: must be shorter than deadline_s, {self.deadline_s:g} s")
        if self.select.campaign is not None:
            for name in ("combine", "guaranteed", "when_whole", "arrival_s"):
                if getattr(self, name):
                    raise ValueError(f"{name}: a campaign processes exposures one by one")
            if self.run is None:
                raise ValueError("run: a campaign needs a name, under which its results are stored")
        if self.run == PROMPT:
            raise ValueError(f"run: {PROMPT} is what the night's own processing is called")
        if self.combine is not None and self.combine.builds is not None and self.pipeline is not None:
            raise ValueError(f"pipeline: {self.combine.value} chooses its own")
        if self.combine is not None and self.select.exposures is not None:
            n, least = len(self.select.listed()), self.combine.least
            if n < least or (self.combine is Combine.DONUT_PAIR and n != 2):
                raise ValueError(f"select.exposures: {self.combine.value} needs {least} exposures, not {n}")
        if self.guaranteed and self.detectors is not None:
            raise ValueError("detectors: a guaranteed exposure is processed on every detector")
        return self


class RequestState(StrEnum):
    """Where a request stands."""

    POSTED = "posted"
    """In the inbox: no head has looked at it yet."""

    ACCEPTED = "accepted"
    WAITING = "waiting"
    """For exposures that are not there yet."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Its deadline passed; what was finished by then is in the answer."""

    REFUSED = "refused"
    """Never accepted; the error says why."""

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self not in {RequestState.POSTED, RequestState.ACCEPTED, RequestState.WAITING, RequestState.RUNNING}


class RequestFault(Message):
    """Why a request was refused, or failed."""

    code: str = Field(description="Stable word for programs.")
    message: str = Field(description="One sentence for a person.")
    field: str | None = Field(default=None, description="Dotted path of the value that is not valid.")


class Progress(Message):
    """How far it is."""

    done: int = Field(default=0, description="Detectors with a result, or known to have none.")
    of: int = Field(default=0, description="Detectors known to be wanted so far.")
    exposures_done: int = 0
    exposures_of: int | None = Field(default=None, description="None while it is not known how many there will be.")
    lacks: str = Field(default="", description="What is waited for before it can begin, or be whole.")


class RequestRecord(Message):
    """A request, and what became of it."""

    request_id: str
    camera: str
    state: RequestState
    spec: RequestSpec | None = Field(default=None, description="None if it could not be read.")
    version: int = Field(default=1, ge=1, description="Counts the changes of this document.")
    source: str = Field(default="redis", description="Door it came in by: redis, http, ocs, uws.")
    asked_by: str = ""
    run: str = Field(default="", description="Under which its own results are stored.")
    created_ms: int = Field(default=0, description="Board time of the post [ms since 1970].")
    accepted_ms: int | None = None
    started_ms: int | None = Field(default=None, description="When there was first something to process.")
    finished_ms: int | None = None
    deadline_ms: int | None = Field(default=None, description="Board time when it is given up.")
    progress: Progress = Progress()
    members: tuple[int, ...] = Field(default=(), description="Exposures known to belong to it.")
    closed_ms: int | None = Field(
        default=None, description="Board time when it was decided to do without those that had not come."
    )
    after: int = Field(default=0, description="For the next exposures: the newest one when it was accepted.")
    tickets: tuple[str, ...] = Field(default=(), description="Later posts with the same client key.")
    outside: dict[str, str] = Field(
        default_factory=dict, description="What a compatible door needs to answer in its own words."
    )
    answer: RequestAnswer | None = None
    error: RequestFault | None = None


class RequestChange(Message):
    """What is said when a request changes: enough to show it, little enough to send often."""

    request_id: str
    state: RequestState
    version: int = 1
    progress: Progress = Progress()
    label: str = ""
    error: RequestFault | None = None

    @classmethod
    def of(cls, record: RequestRecord) -> "RequestChange":
        """Return the change that leads to a record."""
        return cls(
            request_id=record.request_id,
            state=record.state,
            version=record.version,
            progress=record.progress,
            label=record.spec.label if record.spec else "",
            error=record.error,
        )


def request_schema() -> dict[str, Any]:
    """Return the JSON schema of a request."""
    schema = RequestSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "rapid-request-1", **schema}
