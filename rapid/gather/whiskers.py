"""Size and shape of the PSF over the focal plane: the rows of a PSF map.

Made off the hot path from the star tables: a mosaic of a hundred detectors gets one whisker for each, a camera of a few
gets a grid on each.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict, Field

from rapid.camera.geometry import detector_to_focal_plane
from rapid.camera.models import Camera, Detector
from rapid.errors import RapidError
from rapid.gather.sky_angles import altaz_axes, detector_axes, turn_ellipticity, zenith_of
from rapid.products.store import ProductsStore
from rapid.results.models import DetectorResult

log = structlog.get_logger()

MIN_STARS = 3
"""Fewer stars in a cell say more of themselves than of the PSF."""
GRIDS = ((1, 8), (9, 4), (21, 3), (80, 2))
"""Cells to a side of a detector, for cameras of at most so many detectors; one beyond."""


class Whisker(BaseModel):
    """The PSF in one cell of a detector, medians of its stars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: int
    x_mm: float
    y_mm: float
    fwhm_arcsec: float
    e1: float = Field(description="In the focal plane: long along x is above zero.")
    e2: float
    e1_altaz: float | None = Field(default=None, description="Long along the azimuth is above zero.")
    e2_altaz: float | None = None
    n_stars: int


class PsfMap(BaseModel):
    """All whiskers of an exposure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zenith_deg: float | None = Field(
        default=None, description="Direction of the zenith in the focal plane, clockwise from +y; None if not known."
    )
    whiskers: list[Whisker] = Field(default_factory=list)


def grid_of(n_detectors: int) -> int:
    """Return how many cells to a side of a detector a map of so many detectors has."""
    return next((side for most, side in GRIDS if n_detectors <= most), 1)


def make_psf_map(
    camera: Camera, results: Iterable[DetectorResult], products: ProductsStore, info: Mapping[str, Any]
) -> PsfMap:
    """Return the PSF map of an exposure.

    Parameters
    ----------
    results
        Of one pipeline; those without PSF stars are passed over.
    products
        Where their star tables are. One that cannot be read is replaced by the detector's own medians.
    info
        The exposure's facts, for the direction of the zenith.
    """
    found = [result for result in results if isinstance(result.metrics.get("psf_fwhm_arcsec"), float)]
    zenith = zenith_of(info, camera)
    side = grid_of(len(found))
    whiskers = []
    for result in found:
        detector = camera.by_id.get(result.detector)
        if detector is not None:
            whiskers += _cells_of(detector, result, products, side=side, zenith=zenith)
    return PsfMap(zenith_deg=zenith, whiskers=whiskers)


def _cells_of(
    detector: Detector, result: DetectorResult, products: ProductsStore, *, side: int, zenith: float | None
) -> list[Whisker]:
    stars = _stars_of(result, products) if side > 1 else None
    if stars is None:
        middle = ((detector.width - 1) / 2, (detector.height - 1) / 2)
        m = result.metrics
        medians = [m.get(key) for key in ("psf_fwhm_arcsec", "psf_e1", "psf_e2")]
        n_stars = m.get("n_psf_stars")
        return [_whisker(detector, *middle, medians, int(n_stars) if isinstance(n_stars, int) else 0, zenith)]
    columns = np.clip((stars["x"] / detector.width * side).astype(int), 0, side - 1)
    rows = np.clip((stars["y"] / detector.height * side).astype(int), 0, side - 1)
    cells = []
    for row in range(side):
        for column in range(side):
            here = (rows == row) & (columns == column)
            n = int(np.count_nonzero(here))
            if n >= MIN_STARS:
                medians = [float(np.median(stars[key][here])) for key in ("fwhm_arcsec", "e1", "e2")]
                x, y = (
                    (place + 0.5) / side * size for place, size in ((column, detector.width), (row, detector.height))
                )
                cells.append(_whisker(detector, x, y, medians, n, zenith))
    return cells


def _whisker(
    detector: Detector, x_px: float, y_px: float, medians: list[Any], n_stars: int, zenith: float | None
) -> Whisker:
    fwhm, *shape = (float(value) if isinstance(value, int | float) else 0.0 for value in medians)
    e1, e2 = turn_ellipticity(shape[0], shape[1], detector_axes(detector.n_quarter))
    altaz = turn_ellipticity(e1, e2, altaz_axes(zenith)) if zenith is not None else (None, None)
    x_mm, y_mm = detector_to_focal_plane(detector, x_px, y_px)
    return Whisker(
        detector=detector.id,
        x_mm=float(x_mm),
        y_mm=float(y_mm),
        fwhm_arcsec=fwhm,
        e1=e1,
        e2=e2,
        e1_altaz=altaz[0],
        e2_altaz=altaz[1],
        n_stars=n_stars,
    )


def _stars_of(result: DetectorResult, products: ProductsStore) -> dict[str, Any] | None:
    key = result.products.get("stars")
    if key is None:
        return None
    try:
        table = json.loads(products.get(key))
        psf = np.array(table["is_psf_star"], dtype=bool)
        stars = {name: np.array(table[name], dtype=np.float64)[psf] for name in ("x", "y", "fwhm_arcsec", "e1", "e2")}
    except (RapidError, ValueError, KeyError, TypeError, IndexError) as error:
        log.warning("star table left out of the PSF map", key=key, error=str(error))
        return None
    good = np.isfinite(np.vstack(list(stars.values()))).all(axis=0)
    return {name: values[good] for name, values in stars.items()}
