"""Measure what the mount's motion did to an exposure."""

from datetime import datetime
from typing import Any

import numpy as np

from payloads.mount.kernels import axis_motion, mount_motion
from rapid.results.models import ExposureSummary, Scalar
from rapid.telemetry.influx import TelemetryError, TelemetryReader
from rapid.telemetry.models import TelemetryConfig

HEADLINE = "mount_motion_image_degradation_arcsec"
"""Root mean square motion of a star's image; from 0.05 on it is worth a look, from 0.10 on it is bad."""

PSF = "psf_fwhm_arcsec_median"


def span_of(summary: ExposureSummary) -> tuple[datetime, datetime] | None:
    """Return begin and end of an exposure of the sky [TAI]; None if it is none, or does not say."""
    info = summary.info
    if info.get("can_see_sky") is False or summary.image_type in {"bias", "dark", "flat", "spot"}:
        return None
    begin, end = _moment(info.get("begin")), _moment(info.get("end"))
    return (begin, end) if begin is not None and end is not None and end > begin else None


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None) if isinstance(text, str) else None
    except ValueError:
        return None


def measure_mount(
    reader: TelemetryReader, config: TelemetryConfig, begin: datetime, end: datetime
) -> dict[str, Scalar]:
    """Return the metrics of the mount during an exposure.

    Raises
    ------
    TelemetryError
        Raised if series cannot be had, or tell nothing.
    """
    series = {
        "azimuth": reader.read(config.azimuth, begin, end),
        "elevation": reader.read(config.elevation, begin, end),
    }
    if config.rotator is not None:
        series["rotator"] = reader.read(config.rotator, begin, end)
    try:
        motions = {name: axis_motion(one.time_s, one.actual_deg, one.demand_deg) for name, one in series.items()}
    except ValueError as error:
        raise TelemetryError(f"the mount's motion cannot be measured: {error}") from error
    found = mount_motion(
        motions["azimuth"],
        motions["elevation"],
        motions.get("rotator"),
        elevation_deg=float(np.mean(series["elevation"].actual_deg)),
        field_radius_deg=config.field_radius_deg,
    )
    metrics: dict[str, Scalar] = {HEADLINE: found.image_rms_arcsec, "mount_motion_fwhm_arcsec": found.fwhm_arcsec}
    for name, motion in motions.items():
        metrics[f"mount_{name}_rms_arcsec"] = motion.rms_arcsec
        metrics[f"mount_{name}_peak_arcsec"] = motion.peak_arcsec
    return metrics


def with_share(metrics: dict[str, Scalar], summary: ExposureSummary) -> dict[str, Scalar]:
    """Return metrics with the mount's share of the image's area, where its size is known."""
    psf, motion = summary.metrics.get(PSF), metrics.get("mount_motion_fwhm_arcsec")
    if not isinstance(psf, int | float) or not isinstance(motion, int | float) or psf <= 0:
        return metrics
    return {**metrics, "mount_motion_share_percent": 100.0 * min((motion / psf) ** 2, 1.0)}
