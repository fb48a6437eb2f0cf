"""What a request says, what became of it, and what is answered.

`RequestSpec` is the one schema, whatever door it comes in by; `rapid request schema` prints it. `RequestRecord` is the
document that everybody reads: the request as it was understood, its state, its progress, and in the end its answer.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rapid.exposure.models import ImageType
from rapid.pipeline.models import NAME as PIPELINE_NAME
from rapid.requests.calibs import MAX_CALIBS, Action, CalibStanding
from rapid.requests.campaigns import CampaignAnswer, CampaignSelection
from rapid.requests.completion import Lacking, OnMissing
from rapid.results.models import Scalar

SCHEMA_VERSION = 1

MAX_EXPOSURES = 1000
"""A long night. More is several requests, so that each can be cancelled, and answered, on its own."""

MAX_DEADLINE_S = 7 * 86400.0
DEFAULT_DEADLINE_S = 3600.0

LARGEST_ID = 9999_12_31_99999
"""Of an exposure: simulated ones carry a thousand years and more in their day, none has five digits."""

KEY = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
RUN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
REQUEST_ID = r"^[0-9]{1,20}-[0-9]{1,20}$"

PROMPT = "prompt"
"""The run of what the head processes by itself."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _range_of(value: Any) -> Any:
    """Read ``first-last`` and ``first..last`` as a range; leave anything else."""
    if isinstance(value, str):
        text = value.replace("..", "-").replace(" ", "")
        first, dash, last = text.partition("-")
        if dash and first.isdecimal() and last.isdecimal() and len(text) < 40:
            return {"first": int(first), "last": int(last)}
        if first.isdecimal() and not dash and len(text) < 20:
            return int(first)
    return value


ExposureId = Annotated[int, Field(gt=0, le=LARGEST_ID)]


class ExposureRange(_Message):
    """Exposures from one id to another, both included, of one night."""

    first: ExposureId
    last: ExposureId

    @model_validator(mode="after")
    def _in_order(self) -> "ExposureRange":
        if self.last < self.first:
            raise ValueError(f"the last exposure, {self.last}, is before the first, {self.first}")
        if self.last - self.first >= MAX_EXPOSURES:
            raise ValueError(f"{self.last - self.first + 1} exposures are too many; {MAX_EXPOSURES} at most")
        return self


ExposureItem = Annotated[ExposureId | ExposureRange, BeforeValidator(_range_of)]


class NextExposures(_Message):
    """The next exposures of a kind, taken after the request was accepted."""

    n: int = Field(ge=1, le=MAX_EXPOSURES)
    image_type: ImageType | None = Field(default=None, description="Any if left out.")


class GroupExposures(_Message):
    """The exposures of a group, those still to be taken included."""

    group_id: str = Field(min_length=1, max_length=256, description="GROUPID in their headers.")
    n: int | None = Field(
        default=None,
        ge=1,
        le=MAX_EXPOSURES,
        description="How many there will be; MAXINDEX in their headers if left out.",
    )
    image_type: ImageType | None = Field(default=None, description="Only those of this kind.")
    quiet_s: float = Field(
        default=60.0,
        gt=0,
        le=86400.0,
        description="If neither n nor MAXINDEX says how many: it is whole when no other came for so long [s].",
    )


class SequenceExposures(_Message):
    """The exposures counted together by CURINDEX and MAXINDEX, those still to be taken included."""

    of: ExposureId = Field(description="Any exposure of the sequence.")


class AffectedExposures(_Message):
    """The results that a bad calib, or a bad exposure, has touched: they are done again in place, and nothing else is."""

    calib: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Id of the bad calib; `*` stands for anything, so that one id means every detector's.",
    )
    exposure: ExposureId | None = Field(
        default=None, description="Id of an excluded exposure that calibs were built from."
    )
    replacement: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Id of the calib to take instead, `*` as above; what look-up gives, if left out.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "AffectedExposures":
        if (self.calib is None) == (self.exposure is None):
            raise ValueError("give either calib or exposure")
        if self.replacement is not None and self.calib is None:
            raise ValueError("replacement: is for a bad calib; an exposure is left out of what is built anew")
        return self


class CalibSelection(_Message):
    """Calibs that are there, and what is to be done with them."""

    ids: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        min_length=1, max_length=MAX_CALIBS, description="Calib ids."
    )
    action: Action = Field(
        description="verify: hold them against the thresholds again; certify: let look-ups choose them; reject: no longer."
    )
    override: bool = Field(default=False, description="Certify also what did not pass; needs a reason.")
    reason: str = Field(default="", max_length=1000, description="Why; is written down.")

    @model_validator(mode="after")
    def _says_why(self) -> "CalibSelection":
        if self.override and self.action != "certify":
            raise ValueError("override: is for certify")
        if (self.override or self.action == "reject") and not self.reason.strip():
            raise ValueError("reason: say why")
        return self


class Selection(_Message):
    """Which exposures, or calibs: exactly one of the seven ways."""

    exposures: tuple[ExposureItem, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_EXPOSURES,
        description='Ids and ranges: 2026112000012, "2026112000012-2026112000020".',
    )
    group: GroupExposures | None = None
    next: NextExposures | None = None
    sequence: SequenceExposures | None = None
    affected: AffectedExposures | None = None
    calibs: CalibSelection | None = None
    campaign: CampaignSelection | None = Field(
        default=None, description="Exposures of whole nights, as backlog under a run of their own."
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Selection":
        ways = ("exposures", "group", "next", "sequence", "affected", "calibs", "campaign")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(ways)}; got {', '.join(given) or 'none'}")
        n = sum(item.last - item.first + 1 if isinstance(item, ExposureRange) else 1 for item in self.exposures or ())
        if n > MAX_EXPOSURES:
            raise ValueError(f"{n} exposures are too many; {MAX_EXPOSURES} at most")
        return self

    def listed(self) -> tuple[int, ...]:
        """Return the listed exposure ids, each once, in order of the list."""

        def expand() -> Iterator[int]:
            for item in self.exposures or ():
                yield from range(item.first, item.last + 1) if isinstance(item, ExposureRange) else (item,)

        return tuple(dict.fromkeys(expand()))


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


class RequestSpec(_Message):
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


class RequestFault(_Message):
    """Why a request was refused, or failed."""

    code: str = Field(description="Stable word for programs.")
    message: str = Field(description="One sentence for a person.")
    field: str | None = Field(default=None, description="Dotted path of the value that is not valid.")


class Progress(_Message):
    """How far it is."""

    done: int = Field(default=0, description="Detectors with a result, or known to have none.")
    of: int = Field(default=0, description="Detectors known to be wanted so far.")
    exposures_done: int = 0
    exposures_of: int | None = Field(default=None, description="None while it is not known how many there will be.")
    lacks: str = Field(default="", description="What is waited for before it can begin, or be whole.")


class ExposureAnswer(_Message):
    """What became of one exposure under one pipeline."""

    exposure_id: int
    pipeline: str
    run: str
    n_finished: int
    n_expected: int
    is_complete: bool
    metrics: dict[str, Scalar] = Field(default_factory=dict)
    products: dict[str, str] = Field(default_factory=dict, description="Keys in the products store, by kind.")
    excluded: dict[str, str] = Field(default_factory=dict, description="Detectors that are switched off: the reason.")
    not_finished: dict[str, str] = Field(default_factory=dict, description="Detector: state and reason.")


class AmpTest(_Message):
    """One test of one amp that failed."""

    detector: str
    amp: str = Field(description="Empty for a test of the detector as a whole.")
    test: str
    value: float | None = Field(description="What was measured; None if it could not be.")
    limit: float | None
    message: str


class CalibAnswer(_Message):
    """The calib that was built, and whether it passed: one that did not is kept, and not certified."""

    kind: str
    inputs: tuple[int, ...]
    calib_ids: dict[str, str] = Field(default_factory=dict, description="By detector.")
    passed: bool
    outcome: str = Field(default="", description="Of its verification: pass, warn, not_measured, fail.")
    states: dict[str, str] = Field(default_factory=dict, description="By detector: certified or rejected.")
    n_amps: int = Field(description="Amps tested.")
    failing_amps: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="By detector.")
    failures: tuple[AmpTest, ...] = Field(default=(), description="The first 200.")
    not_tested: dict[str, str] = Field(default_factory=dict, description="Detector: why it was not.")


class RedoAnswer(_Message):
    """What was done again because a calib or an exposure is bad."""

    bad: tuple[str, ...] = Field(description="The bad calibs or exposures; the first 300.")
    n_results: int = Field(description="Results of single detectors that were touched.")
    n_redone: int = Field(description="Of these, how many are stored anew.")
    exposures: tuple[int, ...] = Field(default=(), description="With results stored anew.")
    rebuilt: dict[str, str] = Field(
        default_factory=dict, description="Calibs that were built with what is bad: what is in their place now."
    )
    not_redone: dict[str, str] = Field(default_factory=dict, description="Job: why; the first 300.")


class RequestAnswer(_Message):
    """What is answered."""

    is_complete: bool = Field(description="Every wanted detector of every exposure finished.")
    exposures: tuple[ExposureAnswer, ...] = ()
    missing: tuple[int, ...] = Field(default=(), description="Exposures that did not come.")
    lacking: Lacking | None = Field(
        default=None, description="What did not come: exposures, places in the group, raws. None if all is there."
    )
    focus: dict[str, Scalar] | None = Field(default=None, description="Best focus of the sweep, with its error.")
    donut_pair: dict[str, Scalar] | None = Field(default=None, description="Focus offset of the pair.")
    calib: CalibAnswer | None = None
    calibs: tuple[CalibStanding, ...] = Field(default=(), description="Where the named calibs stand now.")
    redo: RedoAnswer | None = None
    campaign: CampaignAnswer | None = None
    notes: tuple[str, ...] = ()


class RequestRecord(_Message):
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


class RequestChange(_Message):
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
