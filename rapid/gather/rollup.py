"""The night in numbers: what a night's summaries add up to.

Pure: one document per night, made again whenever the night has grown.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from rapid.results.models import DetectorState, ExposureSummary, Scalar

ROLLED = (
    "psf_fwhm_arcsec_median",
    "psf_fwhm_zenith_arcsec_median",
    "psf_e_median",
    "sky_level_e_median",
    "zero_point_mag_median",
    "transparency_median",
    "magnitude_limit_5sigma_median",
    "fwhm_field_curvature_arcsec_per_deg2",
)
"""Summary metrics whose course over the night is rolled up; those a night did not measure are left out."""
SKY_TYPES = frozenset({"science", "acq", "focus", "cwfs", "engtest"})


class Spread(BaseModel):
    """How a number was distributed over a night's exposures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float


class NightRollup(BaseModel):
    """A night in numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str
    day_obs: int
    run: str
    n_exposures: int = 0
    n_complete: int = 0
    n_partial: int = 0
    n_failed: int = Field(default=0, description="Exposures without a single finished detector.")
    n_by_type: dict[str, int] = Field(default_factory=dict)
    n_by_filter: dict[str, int] = Field(default_factory=dict, description="Sky exposures alone.")
    open_shutter_s: float = Field(default=0.0, description="Sum of the sky exposures' times.")
    first_begin: str | None = Field(default=None, description="Start of the first exposure, TAI.")
    last_begin: str | None = None
    missing_by_reason: dict[str, int] = Field(default_factory=dict, description="Detectors without a result.")
    metrics: dict[str, Spread] = Field(default_factory=dict)


def roll_up(camera: str, day_obs: int, summaries: Iterable[ExposureSummary], *, run: str = "prompt") -> NightRollup:
    """Return a night in numbers.

    Parameters
    ----------
    summaries
        The newest of each pipeline. Of an exposure with several, that of most detectors counts, and builds do not.
    """
    main: dict[int, _Taken] = {}
    for summary in summaries:
        known = main.get(summary.exposure)
        if not summary.pipeline.startswith("build_") and (known is None or summary.n_expected > known.n_expected):
            main[summary.exposure] = _Taken.of(summary)
    found = [main[exposure] for exposure in sorted(main)]
    sky = [taken for taken in found if taken.image_type in SKY_TYPES]
    begins = sorted(taken.begin for taken in found if taken.begin is not None)
    return NightRollup(
        camera=camera,
        day_obs=day_obs,
        run=run,
        n_exposures=len(found),
        n_complete=sum(taken.is_complete and taken.n_finished > 0 for taken in found),
        n_partial=sum(not taken.is_complete and taken.n_finished > 0 for taken in found),
        n_failed=sum(taken.n_finished == 0 for taken in found),
        n_by_type=dict(sorted(Counter(taken.image_type for taken in found).items())),
        n_by_filter=dict(sorted(Counter(taken.physical_filter for taken in sky).items())),
        open_shutter_s=round(sum(taken.seconds for taken in sky), 3),
        first_begin=begins[0] if begins else None,
        last_begin=begins[-1] if begins else None,
        missing_by_reason=dict(sum((taken.missing for taken in found), Counter()).most_common(20)),
        metrics={
            key: spread for at, key in enumerate(ROLLED) if (spread := _spread(taken.rolled[at] for taken in sky))
        },
    )


@dataclass(frozen=True)
class _Taken:
    """What is kept of a summary while a night is added up: a hundredth of it."""

    n_expected: int
    n_finished: int
    is_complete: bool
    image_type: str
    physical_filter: str
    seconds: float
    begin: str | None
    missing: Counter[str]
    rolled: tuple[Scalar, ...]

    @classmethod
    def of(cls, summary: ExposureSummary) -> "_Taken":
        return cls(
            n_expected=summary.n_expected,
            n_finished=summary.n_finished,
            is_complete=summary.is_complete,
            image_type=summary.image_type,
            physical_filter=str(summary.info.get("physical_filter") or "none"),
            seconds=_seconds_of(summary),
            begin=_time_of(summary),
            missing=_missing(summary),
            rolled=tuple(summary.metrics.get(key) for key in ROLLED),
        )


def _time_of(summary: ExposureSummary) -> str | None:
    begin = summary.info.get("begin")
    return begin.isoformat() if isinstance(begin, datetime) else begin if isinstance(begin, str) else None


def _seconds_of(summary: ExposureSummary) -> float:
    seconds = summary.info.get("exposure_time_s")
    return float(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) else 0.0


def _missing(summary: ExposureSummary) -> Counter[str]:
    wanted = {DetectorState.FINISHED, DetectorState.EXCLUDED, DetectorState.SUPERSEDED}
    return Counter(
        status.reason or status.state.value for status in summary.detectors.values() if status.state not in wanted
    )


def _spread(values: Iterable[object]) -> Spread | None:
    numbers = sorted(
        float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    )
    if not numbers:
        return None
    quarters = statistics.quantiles(numbers, n=4, method="inclusive") if len(numbers) > 1 else numbers * 3
    return Spread(
        n=len(numbers),
        least=numbers[0],
        quarter=quarters[0],
        median=quarters[1],
        three_quarters=quarters[2],
        most=numbers[-1],
    )
