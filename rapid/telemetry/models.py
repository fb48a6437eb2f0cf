"""Where telemetry is, and what its series are called."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class TimeScale(StrEnum):
    """Scale of the times that samples are stored under."""

    UTC = "utc"
    TAI = "tai"


class AxisSeries(BaseModel):
    """The series of one axis."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measurement: str = Field(min_length=1, max_length=200)
    actual: str = Field(
        default="actualPosition", min_length=1, max_length=200, description="Field with the position [deg]."
    )
    demand: str = Field(
        default="demandPosition", max_length=200, description="Field with the wanted position [deg]; none if empty."
    )


class TelemetryConfig(BaseModel):
    """An InfluxDB with the telemetry of a mount; the names are those of the summit's archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://", description="http://host:8086")
    database: str = Field(default="efd", min_length=1)
    user: str = ""
    password: SecretStr | None = None
    azimuth: AxisSeries = AxisSeries(measurement="lsst.sal.MTMount.azimuth")
    elevation: AxisSeries = AxisSeries(measurement="lsst.sal.MTMount.elevation")
    rotator: AxisSeries | None = AxisSeries(measurement="lsst.sal.MTRotator.rotation")
    time_scale: TimeScale = Field(default=TimeScale.UTC, description="Of the times samples are stored under.")
    field_radius_deg: float = Field(default=1.75, gt=0, le=90)
    min_rate_hz: float = Field(default=2.0, gt=0, description="Fewer samples a second tell nothing about an image.")
    max_gap_s: float = Field(default=2.0, gt=0, description="Longest time without a sample, also at begin and end [s].")
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="Of one question [s].")
    retry_s: float = Field(default=5.0, gt=0, description="Between two questions about one exposure [s].")
    give_up_s: float = Field(default=120.0, gt=0, description="From the first question to the last [s].")
