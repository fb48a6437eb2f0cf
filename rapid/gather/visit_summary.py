"""The visit summary: one row for each expected detector of an exposure, as a table that astropy reads with its units.

ECSV, since it is read by astropy, pandas and the eye alike; made off the hot path from the rows of the results store.
"""

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from astropy.table import MaskedColumn, Table

from rapid.camera.models import Camera
from rapid.gather.sky_angles import zenith_of
from rapid.results.models import DetectorResult, ExposureSummary, Scalar

UNITS = {
    "_mag_arcsec2": "mag / arcsec2",
    "_electron_per_adu": "electron / adu",
    "_electron_per_s": "electron / s",
    "_e_per_s": "electron / s",
    "_e_per_adu": "electron / adu",
    "_arcsec": "arcsec",
    "_electron": "electron",
    "_percent": "%",
    "_adu": "adu",
    "_mag": "mag",
    "_deg": "deg",
    "_px": "pix",
    "_um": "um",
    "_mm": "mm",
    "_nm": "nm",
    "_e": "electron",
    "_s": "s",
}
"""Units by the ending of a metric's name; of two that fit, the longer stands first."""
NO_UNIT = frozenset({"psf_e"})
"""An ellipticity, not electrons."""
FACTS = ("physical_filter", "object_name", "begin", "end", "exposure_time_s", "airmass", "azimuth_deg", "elevation_deg")


def make_visit_summary(camera: Camera, summary: ExposureSummary, results: Iterable[DetectorResult]) -> bytes:
    """Return the visit summary of one version of a focal-plane summary, as ECSV.

    Parameters
    ----------
    summary
        Its expected detectors are the rows, by number; a detector without a result has masked metrics and its reason.
    results
        Of this summary's run and pipeline; those of other detectors, and of detectors that this version does not
        count as finished, are passed over.

    Returns
    -------
    bytes
        UTF-8. Columns: ``detector``, ``detector_name``, ``detector_type``, ``x_mm`` and ``y_mm`` (centre in the focal
        plane), ``state``, ``reason``, then every metric by name, with its unit. Numbers that are not finite are masked. The
        header's ``meta`` has the exposure, the version, n of m, the pointing's facts, and the zenith's direction in
        the focal plane, clockwise from +y [deg].
    """
    found = {r.detector: r.metrics for r in results if r.detector in summary.detectors}
    rows = sorted(summary.detectors.items())
    metrics = [found.get(number, {}) if status.state == "finished" else {} for number, status in rows]
    places = [camera.by_id.get(number) for number, _ in rows]
    table = Table(meta=_meta(camera, summary))
    table["detector"] = np.array([number for number, _ in rows], dtype=np.int64)
    table["detector_name"] = [place.name if place else "" for place in places]
    table["detector_type"] = [place.purpose.value if place else "" for place in places]
    for axis in ("x_mm", "y_mm"):
        table[axis] = _column(axis, [getattr(place, axis) if place else None for place in places])
    table["state"] = [status.state.value for _, status in rows]
    table["reason"] = [_line(status.reason or "") for _, status in rows]
    for key in sorted({key for one in metrics for key in one} - set(table.colnames)):
        table[key] = _column(key, [one.get(key) for one in metrics])
    out = io.StringIO()
    table.write(out, format="ascii.ecsv")
    return out.getvalue().encode()


def unit_of(metric: str) -> str | None:
    """Return the unit that a metric's name ends with, as astropy writes it.

    Examples
    --------
    >>> unit_of("psf_fwhm_arcsec"), unit_of("sky_level_e"), unit_of("psf_e"), unit_of("n_stars")
    ('arcsec', 'electron', None, None)
    """
    if metric in NO_UNIT:
        return None
    return next((unit for ending, unit in UNITS.items() if metric.endswith(ending)), None)


def _meta(camera: Camera, summary: ExposureSummary) -> dict[str, Any]:
    facts = {key: value for key in FACTS if (value := summary.info.get(key)) is not None}
    zenith = zenith_of(summary.info, camera)
    return {
        "camera": summary.camera,
        "exposure_id": summary.exposure,
        "day_obs": summary.day_obs,
        "seq_num": summary.seq_num,
        "run": summary.run,
        "pipeline": summary.pipeline,
        "image_type": summary.image_type,
        "version": summary.version,
        "n_finished": summary.n_finished,
        "n_expected": summary.n_expected,
        **{key: value if isinstance(value, int | float) else _line(str(value)) for key, value in facts.items()},
        **({} if zenith is None else {"zenith_deg": zenith}),
    }


def _column(name: str, values: list[Scalar]) -> MaskedColumn:
    """Return values as a column of the narrowest type that holds them all; what is missing or not finite is masked."""
    mask = [value is None or (isinstance(value, float) and not math.isfinite(value)) for value in values]
    known = {type(value) for value, is_missing in zip(values, mask, strict=True) if not is_missing}
    blank: Scalar
    dtype: np.dtype[Any]
    if known == {bool}:
        blank, dtype, unit = False, np.dtype(bool), None
    elif known == {int}:
        blank, dtype, unit = 0, np.dtype(np.int64), unit_of(name)
    elif known <= {int, float}:
        blank, dtype, unit = 0.0, np.dtype(np.float64), unit_of(name)
    else:
        blank, unit = "", None
        values = [value if value is None else _line(str(value)) for value in values]
        dtype = np.dtype(f"U{max(len(str(value or '')) for value in values) or 1}")
    filled = [blank if is_missing else value for value, is_missing in zip(values, mask, strict=True)]
    return MaskedColumn(np.array(filled, dtype=dtype), name=name, mask=mask, unit=unit)


def _line(text: str) -> str:
    """Return a text as one line: astropy ends a row at a line break, even within quotes."""
    return " ".join(text.split())
