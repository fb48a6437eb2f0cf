"""What an exposure is, as validated facts with units.

A header translator (`rapid.exposure.translate`) makes an `ExposureInfo` from the headers of one raw.
Facts that a header does not give are `None`, never 0 or NaN.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class ImageType(StrEnum):
    """What an exposure was taken for."""

    BIAS = "bias"
    DARK = "dark"
    FLAT = "flat"
    SCIENCE = "science"
    ACQ = "acq"
    FOCUS = "focus"
    CWFS = "cwfs"
    ENGTEST = "engtest"
    STUTTERED = "stuttered"
    SPOT = "spot"
    UNKNOWN = "unknown"

    @property
    def is_calibration(self) -> bool:
        """Whether the shutter looked at no sky: bias, dark or flat."""
        return self in {ImageType.BIAS, ImageType.DARK, ImageType.FLAT}


def exposure_id_of(day_obs: int, seq_num: int) -> int:
    """Return the exposure id of a day and sequence number.

    Examples
    --------
    >>> exposure_id_of(20251115, 226)
    2025111500226
    """
    return day_obs * 100_000 + seq_num


class ExposureInfo(BaseModel):
    """The facts of one exposure, and which detector's raw they were read from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str = Field(description="Name of the camera definition, e.g. LSSTCam.")
    exposure_id: int = Field(
        gt=0, description="day_obs * 100000 + seq_num, controller's thousand years added to day_obs."
    )
    obs_id: str = Field(description="The summit's name of the exposure, e.g. MC_O_20251115_000226.")
    controller: str = Field(pattern=r"^[A-Z]$", description="Who took it: O, C, H, P, Q or S.")
    day_obs: int = Field(ge=19900101, le=99991231, description="Observing day, YYYYMMDD at UTC-12 h, as in the obs id.")
    seq_num: int = Field(ge=0, lt=100_000)
    detector: int = Field(ge=0)
    detector_name: str
    is_guider: bool = Field(default=False, description="A guider file: stamps instead of amp segments.")
    image_type: ImageType
    reason: str | None = None
    program: str | None = None
    object_name: str | None = None
    group_id: str | None = None
    group_index: int | None = Field(default=None, description="CURINDEX: place in its group, from 1.")
    group_size: int | None = Field(default=None, description="MAXINDEX: exposures in its group.")
    begin: datetime | None = Field(default=None, description="Start of the exposure, TAI.")
    end: datetime | None = Field(default=None, description="End of the exposure, TAI.")
    exposure_time_s: float | None = Field(default=None, ge=0)
    dark_time_s: float | None = Field(default=None, ge=0)
    physical_filter: str | None = None
    band: str | None = None
    ra_deg: float | None = Field(default=None, ge=0, le=360)
    dec_deg: float | None = Field(default=None, ge=-90, le=90)
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    rotator_angle_deg: float | None = Field(default=None, description="ROTPA: sky position angle of the camera.")
    airmass: float | None = Field(default=None, ge=1)
    focus_z_mm: float | None = None
    can_see_sky: bool | None = None
    seeing_arcsec: float | None = Field(default=None, description="Seeing monitor's value in the header.")
    temperature_c: float | None = None
    pressure_pa: float | None = None
    humidity_percent: float | None = None
    detector_serial: str | None = None
    simulated: bool = False
