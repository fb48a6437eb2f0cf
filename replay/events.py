"""What happens in a night, in order: the lines of a recording's ``events.jsonl``.

Times are seconds since the night's first event. What a player does with each kind: `replay.play`.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from rapid.next_visit.models import LINGER_S, MAX_LIFE_S, NextVisit
from rapid.results.models import Scalar


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at_s: float = Field(ge=0, allow_inf_nan=False, description="Since the night's first event [s].")


class RawsEvent(_Event):
    """Raws of one exposure that arrived together, one after the other."""

    kind: Literal["raws"] = "raws"
    exposure: int = Field(gt=0)
    detectors: tuple[str, ...] = Field(min_length=1, description="Names, in the order they arrived.")
    after_ms: tuple[int, ...] = Field(description="When each arrived, after at_s.")
    quarantined: dict[str, str] = Field(
        default_factory=dict, description="Detectors whose raw could not be read: code of the error."
    )

    @model_validator(mode="after")
    def _one_time_each(self) -> "RawsEvent":
        if len(self.detectors) != len(self.after_ms):
            raise ValueError(f"{len(self.detectors)} detectors, but {len(self.after_ms)} times")
        if any(ms < 0 for ms in self.after_ms):
            raise ValueError("after_ms: a raw before the first")
        return self


class SidecarEvent(_Event):
    """The camera said which sensors it reads out."""

    kind: Literal["expected_sensors"] = "expected_sensors"
    exposure: int = Field(gt=0)
    detectors: tuple[str, ...]


class ControlEvent(_Event):
    """The control state was changed."""

    kind: Literal["control"] = "control"
    change: dict[str, Any] = Field(description="Fields and their new values, nested as the document is.")
    by: str = ""
    door: str = ""
    reason: str = ""


class RequestEvent(_Event):
    """Something was asked for."""

    kind: Literal["request"] = "request"
    request_id: str = Field(description="In the recorded night; the replay's will be another.")
    spec: dict[str, Any]
    by: str = ""
    door: str = ""
    ended: str = Field(default="", description="How it ended, to compare with.")
    run: str = Field(default="", description="Under which its results are stored; another one in each replay.")


class CancelEvent(_Event):
    """A request was cancelled."""

    kind: Literal["cancel"] = "cancel"
    request_id: str
    by: str = ""


class VisitEvent(_Event):
    """Exposures were announced."""

    kind: Literal["visit"] = "visit"
    visit: NextVisit = Field(description="What was announced; its start_time is the recorded night's.")
    life_s: float = Field(default=LINGER_S, gt=0, le=MAX_LIFE_S, description="How long it counts [s].")


class VisitCanceledEvent(_Event):
    """An announcement was taken back."""

    kind: Literal["visit_canceled"] = "visit_canceled"
    group: str = Field(min_length=1, max_length=200)


class ExclusionEvent(_Event):
    """A detector, or an amp of it, was switched off."""

    kind: Literal["exclusion"] = "exclusion"
    detector: str
    amp: str = ""
    reason: str
    author: str = ""
    valid_from: AwareDatetime = Field(description="Exposures that begin from here on are concerned, UTC.")
    valid_to: AwareDatetime | None = Field(default=None, description="And from here on no longer; open if none.")


class NoteEvent(_Event):
    """Something was seen on the board: it is the replay's to do again by itself."""

    kind: Literal["note"] = "note"
    name: str
    exposure: int | None = None
    data: dict[str, Scalar] = Field(default_factory=dict)


class FaultEvent(_Event):
    """Something goes wrong on purpose."""

    kind: Literal["fault"] = "fault"
    fault: dict[str, Any]


NightEvent = Annotated[
    RawsEvent
    | SidecarEvent
    | ControlEvent
    | RequestEvent
    | CancelEvent
    | VisitEvent
    | VisitCanceledEvent
    | ExclusionEvent
    | NoteEvent
    | FaultEvent,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[NightEvent] = TypeAdapter(NightEvent)
