"""Put images of many exposures on one common place and scale, before they are averaged.

Each is matched to the stars of those before it. What a reference catalogue has put on the sky comes first, so that the others
are tied to it; where nothing has, all are tied to the first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from payloads.difference.sky_map import SkyMap, tiles_below
from payloads.difference.tiles import Tile
from payloads.quality.astrometry import match_points, project
from rapid.camera.models import Camera, Detector

RADIUS_ARCSEC = 30.0
"""How far two headers' pointings may be apart."""
SAME_ARCSEC = 1.0
MANY_STARS = 10
"""With so many known stars on a detector, one that cannot be matched to them is not where it says."""
MIN_SCALE_STARS = 5

Pixels = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True)
class Contribution:
    """A calibrated image that a template may be made of.

    Attributes
    ----------
    stars : ndarray of shape (n, 3), float64
        x, y [px] and all the light [electron] of its PSF stars, brightest first.
    load
        Reads image, variance and mask.
    zero_point_mag, zero_point_system
        Of its own; None if it was not measured.
    is_solved
        Whether its place was measured against a reference catalogue.
    source
        What it was read from, for the record.
    """

    exposure_id: int
    camera: Camera
    detector: Detector
    exposure_time_s: float
    sky_map: SkyMap
    stars: NDArray[np.float64]
    fwhm_arcsec: float
    load: Callable[[], Pixels]
    zero_point_mag: float | None = None
    zero_point_system: str | None = None
    is_solved: bool = False
    source: str = ""

    @property
    def pixel_arcsec(self) -> float:
        """Side of a pixel."""
        return self.camera.plate_scale_arcsec_per_mm * self.detector.pixel_mm


@dataclass(frozen=True)
class Aligned:
    """An image with the place and the scale that it has among the others.

    Attributes
    ----------
    scale
        Takes its electrons to the templates' unit.
    zero_point_mag, zero_point_system
        Of that unit, the same for all.
    how
        What the scale is from: ``zero point``, ``stars`` or ``exposure time``.
    """

    contribution: Contribution
    sky_map: SkyMap
    scale: float
    zero_point_mag: float | None
    zero_point_system: str | None
    how: str

    @cached_property
    def tiles(self) -> list[Tile]:
        """Tiles that it lies on."""
        return tiles_below(self.sky_map)

    def facts(self) -> dict[str, Any]:
        """Return what the record says of it."""
        one = self.contribution
        return {
            "exposure": one.exposure_id,
            "detector": one.detector.name,
            "source": one.source,
            "scale": self.scale,
            "scale_from": self.how,
            "is_solved": one.is_solved,
            "fwhm_arcsec": one.fwhm_arcsec,
        }


@dataclass(frozen=True)
class LeftOut:
    """An image that no template is made of, and why."""

    exposure_id: int
    detector_name: str
    reason: str


class _Known:
    """Stars of the images taken so far: right ascension, declination and flux in the common unit."""

    def __init__(self) -> None:
        self.stars = np.zeros((0, 3))

    def around(self, sky_map: SkyMap, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return plane coordinates and fluxes of those on and around a detector, brightest first."""
        if not len(self.stars) or not len(points):
            return np.zeros((0, 2)), np.zeros(0)
        others = project(
            self.stars[:, 0],
            self.stars[:, 1],
            centre_ra_deg=sky_map.centre_ra_deg,
            centre_dec_deg=sky_map.centre_dec_deg,
        )
        low, high = points.min(axis=0) - RADIUS_ARCSEC, points.max(axis=0) + RADIUS_ARCSEC
        near = ((others >= low) & (others <= high)).all(axis=1)
        order = np.flatnonzero(near)[np.argsort(-self.stars[near, 2], kind="stable")]
        return others[order], self.stars[order, 2]

    def add(self, sky_map: SkyMap, stars: NDArray[np.float64], flux: NDArray[np.float64]) -> None:
        """Remember stars that are not known yet."""
        points = sky_map.to_plane(stars[:, 0], stars[:, 1])
        others, _ = self.around(sky_map, points)
        is_new = np.ones(len(points), dtype=bool)
        if len(others):
            is_new = np.asarray(cKDTree(others).query(points)[0]) > SAME_ARCSEC
        ra, dec = sky_map.to_sky(stars[is_new, 0], stars[is_new, 1])
        self.stars = np.concatenate((self.stars, np.column_stack((ra, dec, flux[is_new]))))


def align(contributions: Sequence[Contribution]) -> tuple[list[Aligned], list[LeftOut]]:
    """Tie images together.

    Parameters
    ----------
    contributions
        Of one band, in any order.

    Returns
    -------
    aligned
        Those that can be used, by exposure and detector.
    left_out
        The others.
    """
    order = sorted(
        contributions, key=lambda one: (one.zero_point_mag is None, not one.is_solved, one.exposure_id, one.detector.id)
    )
    known = _Known()
    aligned: list[Aligned] = []
    left_out: list[LeftOut] = []
    anchor = order[0] if order else None
    for one in order:
        assert anchor is not None  # noqa: S101 - there is a first
        points = one.sky_map.to_plane(one.stars[:, 0], one.stars[:, 1])
        others, fluxes = known.around(one.sky_map, points)
        match = match_points(points, others, radius_arcsec=RADIUS_ARCSEC)
        if match is None and not one.is_solved and _n_inside(others, points) >= MANY_STARS:
            left_out.append(LeftOut(one.exposure_id, one.detector.name, "its stars do not match those of the others"))
            continue
        sky_map = one.sky_map if match is None else one.sky_map.moved(match)
        scale, how = 1.0 / one.exposure_time_s, "exposure time"
        is_alike = one.zero_point_system == anchor.zero_point_system
        if one.zero_point_mag is not None and anchor.zero_point_mag is not None and is_alike:
            scale *= 10.0 ** (0.4 * (anchor.zero_point_mag - one.zero_point_mag))
            how = "zero point"
        elif match is not None and len(match.first) >= MIN_SCALE_STARS:
            scale = float(np.median(fluxes[match.second] / one.stars[match.first, 2]))
            how = "stars"
        known.add(sky_map, one.stars, one.stars[:, 2] * scale)
        aligned.append(Aligned(one, sky_map, scale, anchor.zero_point_mag, anchor.zero_point_system, how))
    aligned.sort(key=lambda found: (found.contribution.exposure_id, found.contribution.detector.id))
    return aligned, left_out


def _n_inside(others: NDArray[np.float64], points: NDArray[np.float64]) -> int:
    """Count the known stars within the reach of a detector's stars."""
    if not len(points) or not len(others):
        return 0
    inside = (others >= points.min(axis=0)) & (others <= points.max(axis=0))
    return int(np.count_nonzero(inside.all(axis=1)))


def star_rows(table: dict[str, Any], *, aperture_loss_mag: float | None) -> NDArray[np.float64]:
    """Return x, y [px] and all the light [electron] of a star table's PSF stars, shape (n, 3), brightest first."""
    whole = 10.0 ** (0.4 * aperture_loss_mag) if aperture_loss_mag is not None else 1.0
    rows = [
        (x, y, flux * whole)
        for x, y, flux, is_psf in zip(table["x"], table["y"], table["flux_e"], table["is_psf_star"], strict=True)
        if is_psf and flux is not None and math.isfinite(flux) and flux > 0
    ]
    found = np.array(rows, np.float64).reshape(-1, 3)
    return found[np.argsort(-found[:, 2], kind="stable")]
