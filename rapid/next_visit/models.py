"""What an announcement says: the event ``nextVisit`` of the summit's ScriptQueue, and its cancellation.

Field names and units are those of ts_xml; what a wrapper of the EFD or a fan-out service adds is read, or left out.
"""

import json
import math
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rapid.exposure.translate import band_of

_TAI_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a TAI moment has no zone of its own

LINGER_S = 300.0
"""How long after its announced end a visit may still come: scripts wait for telescope and dome."""
MAX_LIFE_S = 6 * 3600.0
MAX_TIME_S = 4.1e9
"""The year 2100: what is later is in other units, and further on no calendar can say when it is."""
UTC_TO_TAI_S = 37.0
"""Since 2017; a second more or less is nothing to a wait of minutes."""

ROTATION_SKY = 2
"""Of ``rotationSystem``: the angle is that of the camera on the sky, as headers have it."""


class CoordinateSystem(IntEnum):
    """What ``position`` is in."""

    NONE = 1
    ICRS = 2
    OBSERVED = 3
    MOUNT = 4


class NextVisit(BaseModel):
    """Exposures are coming."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    group_id: str = Field(alias="groupId", min_length=1, max_length=200)
    instrument: str = Field(min_length=1, max_length=64)
    sal_index: int = Field(default=0, alias="salIndex")
    script_index: int = Field(default=0, alias="scriptSalIndex")
    coordinate_system: CoordinateSystem = Field(default=CoordinateSystem.NONE, alias="coordinateSystem")
    position: tuple[float, float] | None = Field(default=None, description="deg; a text of two numbers is read, too.")
    start_time: float = Field(
        default=0.0,
        alias="startTime",
        ge=0,
        le=MAX_TIME_S,
        allow_inf_nan=False,
        description="TAI, s since 1970; 0 is unknown.",
    )
    rotation_system: int = Field(default=1, alias="rotationSystem", description="What cameraAngle is in; 2 is the sky.")
    camera_angle: float | None = Field(default=None, alias="cameraAngle", description="deg")
    filters: str = Field(default="", max_length=500, description="Comma separated; empty is any.")
    dome: int = 0
    duration: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Expected, all exposures [s]; 0 is unknown."
    )
    n_images: int = Field(default=0, alias="nimages", ge=0, le=10_000, description="0 is unknown.")
    survey: str = Field(default="", max_length=200)
    detectors: tuple[int, ...] | None = Field(default=None, description="Of a fanned-out message; all if None.")

    @model_validator(mode="before")
    @classmethod
    def _from_fan_out(cls, facts: Any) -> Any:
        """Take the form with one ``detector`` that a fan-out service sends."""
        if isinstance(facts, dict) and "detector" in facts and "detectors" not in facts:
            return {**facts, "detectors": [facts["detector"]]}
        return facts

    @field_validator("position", mode="before")
    @classmethod
    def _from_text(cls, position: Any) -> Any:
        if isinstance(position, str):
            try:
                return json.loads(position)
            except ValueError:
                raise ValueError("must be two numbers, or a text of them as [ra, dec]") from None
        return position

    @field_validator("camera_angle")
    @classmethod
    def _is_an_angle(cls, angle: float | None) -> float | None:
        return angle if angle is not None and math.isfinite(angle) else None

    @field_validator("position")
    @classmethod
    def _is_finite(cls, position: tuple[float, float] | None) -> tuple[float, float] | None:
        # No pointing is announced as NaN or as 0, 0 with system NONE.
        return None if position is None or not all(abs(one) <= 360.0 for one in position) else position

    @property
    def begin(self) -> datetime | None:
        """Announced begin, TAI; None if it is not known."""
        return _TAI_EPOCH + timedelta(seconds=self.start_time) if self.start_time > 0 else None

    @property
    def sky(self) -> tuple[float, float] | None:
        """Announced right ascension and declination [deg]; None if it is no pointing on the sky."""
        return self.position if self.coordinate_system is CoordinateSystem.ICRS else None

    @property
    def sky_angle_deg(self) -> float | None:
        """Announced position angle of the camera on the sky; None if it is not known."""
        return self.camera_angle if self.sky is not None and self.rotation_system == ROTATION_SKY else None

    @property
    def physical_filters(self) -> tuple[str, ...]:
        """Announced filters; none is any."""
        return tuple(name for part in self.filters.split(",") if (name := part.strip()))

    def has_filter(self, physical_filter: str | None) -> bool:
        """Whether a filter is among the announced ones, which may be given by band alone.

        Examples
        --------
        >>> NextVisit(groupId="g", instrument="LSSTCam", filters="r").has_filter("r_57")
        True
        """
        names = self.physical_filters
        return not names or physical_filter in names or (band_of(physical_filter) or "?") in names

    def joined_to(self, before: "NextVisit | None") -> "NextVisit":
        """Return this announcement with the detectors of an earlier one that says the same: a fan-out names one each.

        Examples
        --------
        >>> one, two = (NextVisit(groupId="g", instrument="LSSTCam", detector=n) for n in (5, 3))
        >>> two.joined_to(one).detectors
        (3, 5)
        """
        if before is None or before.said != self.said:
            return self
        if before.detectors is None or self.detectors is None:
            return self.model_copy(update={"detectors": None})
        return self.model_copy(update={"detectors": tuple(sorted({*before.detectors, *self.detectors}))})

    @property
    def said(self) -> str:
        """What it says, its detectors left out."""
        return self.model_dump_json(exclude={"detectors"})

    def is_over(self, *, now_s: float) -> bool:
        """Whether its exposures should have come long ago; never of one that does not say when it begins.

        Parameters
        ----------
        now_s
            UTC, s since 1970.
        """
        return 0 < self.start_time < now_s + UTC_TO_TAI_S - self.duration - LINGER_S

    def life_s(self, *, now_s: float) -> float:
        """Return how long the announcement counts [s]: until it should have been over for a while.

        Parameters
        ----------
        now_s
            UTC, s since 1970.
        """
        wait_s = max(self.start_time - UTC_TO_TAI_S - now_s, 0.0) if self.start_time > 0 else 0.0
        return min(wait_s + self.duration + LINGER_S, MAX_LIFE_S)


class NextVisitCanceled(BaseModel):
    """They are not coming after all."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    group_id: str = Field(alias="groupId", min_length=1, max_length=200)
    script_index: int = Field(default=0, alias="scriptSalIndex")


class VisitState(BaseModel):
    """An announced visit and what has come of it.

    Attributes
    ----------
    exposures
        Those of its group, by their place in it as far as their headers tell.
    """

    visit: NextVisit
    announced_at_ms: int
    exposures: tuple[int, ...] = ()
    is_whole: bool = Field(default=False, description="As many came as were announced.")


def messages_of(document: Any) -> list[Any]:
    """Return the announcements of a body: one, in the EFD's wrapper or not, or a batch as a Kafka REST proxy's.

    Examples
    --------
    >>> messages_of({"message": {"groupId": "g"}}), messages_of([{"value": {"groupId": "g"}}])
    ([{'groupId': 'g'}], [{'groupId': 'g'}])
    """
    if isinstance(document, dict) and isinstance(document.get("records"), list):
        document = document["records"]
    if isinstance(document, list):
        return [one for entry in document for one in messages_of(entry)]
    if isinstance(document, dict):
        for wrapper in ("value", "message"):
            if isinstance(document.get(wrapper), dict):
                return messages_of(document[wrapper])
    return [document]
