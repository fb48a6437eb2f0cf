"""Which pixel of a detector looks where: the camera's geometry, turned and shifted as its measured stars were.

The star table of payload `quality` has every star's pixel and its place on the sky, by the match to a reference catalogue or,
without one, by the header. Both are an affine map of the field angles, so that a few stars tell the whole of it exactly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from payloads.difference.tiles import Tile, tiles_of
from payloads.quality.astrometry import Match, Pointing, pixels_to_field_angle, project, unproject
from rapid.camera.geometry import focal_plane_to_detector
from rapid.camera.models import Camera, Detector
from rapid.errors import PayloadError

MAX_RMS_ARCSEC = 0.05
"""The stars were put onto the sky by such a map, so that nothing but rounding may be left over."""
MIN_STARS = 4
N_NEWTON = 8
"""Iterations that undo the radial distortion, to rounding."""
N_GRID = 17
"""Points along a detector's side that tell which tiles it overlaps."""


@dataclass(frozen=True)
class SkyMap:
    """Pixels of one detector in one exposure to the sky and back.

    Attributes
    ----------
    centre_ra_deg, centre_dec_deg
        Of the tangent plane: the boresight of the header.
    matrix : ndarray of shape (2, 2), arcsec per degree
    offset_arcsec : ndarray of shape (2,)
        Of plane coordinates (to the east, to the north) = matrix @ field angle + offset.
    """

    camera: Camera
    detector: Detector
    centre_ra_deg: float
    centre_dec_deg: float
    matrix: NDArray[np.float64]
    offset_arcsec: NDArray[np.float64]

    def to_plane(self, x_px: ArrayLike, y_px: ArrayLike) -> NDArray[np.float64]:
        """Return tangent-plane coordinates of pixels, shape (n, 2), arcsec."""
        angles = pixels_to_field_angle(self.camera, self.detector, np.ravel(x_px), np.ravel(y_px))
        return np.asarray(np.column_stack(angles) @ self.matrix.T + self.offset_arcsec)

    def to_sky(self, x_px: ArrayLike, y_px: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return right ascension and declination of pixels [deg], arrays of shape (n,)."""
        centre = {"centre_ra_deg": self.centre_ra_deg, "centre_dec_deg": self.centre_dec_deg}
        return unproject(self.to_plane(x_px, y_px), **centre)

    def to_px(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the pixels of positions, arrays of shape (n,); beyond the edges for what is beside the detector."""
        points = project(ra_deg, dec_deg, centre_ra_deg=self.centre_ra_deg, centre_dec_deg=self.centre_dec_deg)
        angles = (points - self.offset_arcsec) @ np.linalg.inv(self.matrix).T
        x_mm, y_mm = _to_focal_plane(self.camera, angles[:, 0], angles[:, 1])
        return focal_plane_to_detector(self.detector, x_mm, y_mm)

    def moved(self, match: Match) -> "SkyMap":
        """Return the map that a match of its plane coordinates to better ones asks for."""
        zero, ex, ey = match.apply(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        turn = np.column_stack((ex - zero, ey - zero))
        return replace(self, matrix=turn @ self.matrix, offset_arcsec=turn @ self.offset_arcsec + zero)


def _to_focal_plane(
    camera: Camera, x_deg: NDArray[np.float64], y_deg: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return focal-plane positions [mm] of field angles; the inverse of `focal_plane_to_field_angle`, by Newton."""
    distortion = np.polynomial.Polynomial(np.asarray(camera.radial_coefficients, np.float64))
    slope = distortion.deriv()
    to_mm = 3600.0 / camera.plate_scale_arcsec_per_mm
    target = np.hypot(x_deg, y_deg) * to_mm
    r = target.copy()
    for _ in range(N_NEWTON):
        r = r - (distortion(r) - target) / slope(r)
    stretch = to_mm * np.where(target > 0, r / np.where(target > 0, target, 1.0), 1.0)
    return x_deg * stretch, y_deg * stretch


def sky_map_of(
    camera: Camera,
    detector: Detector,
    *,
    ra_deg: float | None,
    dec_deg: float | None,
    stars: Mapping[str, Sequence[Any]] | None,
) -> SkyMap:
    """Return the sky map that a star table was made with.

    Parameters
    ----------
    ra_deg, dec_deg
        Boresight of the header.
    stars
        Table ``stars`` of payload `quality`: ``x``, ``y``, ``ra_deg`` and ``dec_deg``.

    Raises
    ------
    PayloadError
        Raised, saying what is missing, if the table does not tell.
    """
    if ra_deg is None or dec_deg is None:
        raise PayloadError("the header has no pointing")
    table = stars or {}
    rows = [
        row
        for row in zip(*(table.get(name, ()) for name in ("x", "y", "ra_deg", "dec_deg")), strict=True)
        if all(value is not None and math.isfinite(value) for value in row)
    ]
    if len(rows) < MIN_STARS:
        raise PayloadError(f"only {len(rows)} stars have a place on the sky: {MIN_STARS} are needed")
    x, y, ra, dec = np.array(rows, np.float64).T
    angles = np.column_stack((*pixels_to_field_angle(camera, detector, x, y), np.ones(len(x))))
    points = project(ra, dec, centre_ra_deg=ra_deg, centre_dec_deg=dec_deg)
    # Centred and in units of their spread: the angles of one detector far from the axis are nearly all alike.
    middle, spread = angles[:, :2].mean(axis=0), max(float(angles[:, :2].std()), 1e-9)
    scaled = np.column_stack(((angles[:, :2] - middle) / spread, angles[:, 2]))
    found, _, rank, singular = np.linalg.lstsq(scaled, points, rcond=None)
    if rank < 3 or singular[-1] < 1e-3 * singular[0]:
        raise PayloadError("the stars that have a place on the sky lie on a line")
    rms = float(np.sqrt(np.mean((scaled @ found - points) ** 2)))
    if not rms <= MAX_RMS_ARCSEC:
        raise PayloadError(f"the stars' places differ by {rms:.2f} arcsec from the camera's geometry")
    matrix = found[:2].T / spread
    return SkyMap(camera, detector, ra_deg, dec_deg, matrix, found[2] - matrix @ middle)


def sky_map_of_pointing(camera: Camera, detector: Detector, pointing: Pointing) -> SkyMap:
    """Return the sky map of a detector of a camera that looks somewhere."""
    matrix = pointing.to_plane([1.0, 0.0], [0.0, 1.0]).T
    return SkyMap(camera, detector, pointing.ra_deg, pointing.dec_deg, matrix, np.zeros(2))


def tiles_below(sky_map: SkyMap, *, margin_px: float = 0.0) -> list[Tile]:
    """Return the tiles that a detector overlaps, if it were so much larger on every side."""
    detector = sky_map.detector
    x, y = (np.linspace(-0.5 - margin_px, size - 0.5 + margin_px, N_GRID) for size in (detector.width, detector.height))
    return tiles_of(*sky_map.to_sky(*np.meshgrid(x, y)))
