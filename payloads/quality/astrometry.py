"""Where on the sky the stars of one CCD are: the pointing of the header, corrected by a match to a catalogue.

A quick solve, not a plate solution: header boresight and rotator angle, with the camera's geometry and distortion,
say where every pixel looks to within the pointing error; the offset that brings most stars onto catalogue stars is
voted for by all pairs, and a shift, rotation and scale are fitted to the pairs. Half a pixel's accuracy is enough to
say which star is which, and by how much the telescope missed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import pdtrc

from payloads.quality.catalogue import CatalogueStars
from rapid.camera.geometry import detector_to_focal_plane, focal_plane_to_field_angle
from rapid.camera.models import Camera, Detector

Points = NDArray[np.float64]

VOTE_RADIUS_ARCSEC = 3.0
"""Pairs within this of each other vote together: what a rotator half a degree off does across a CCD."""
MATCH_RADIUS_ARCSEC = (3.0, 1.5, 1.0)
"""How near a catalogue star has to be in the rounds of the fit."""
MAX_CHANCE = 1e-6
"""Chance at which a pile of votes is still taken for a match."""
MIN_MATCHES = 5
N_STARS = 200
N_CATALOGUE = 500
"""Brightest of either side that vote."""


@dataclass(frozen=True)
class Pointing:
    """Where the camera looks.

    Attributes
    ----------
    ra_deg, dec_deg
        Of the boresight, ICRS.
    angle_deg
        Position angle of the focal plane's +y, from north through east.
    parity
        1 if, with +y to the north, +x is to the east; -1 if it is to the west.
    """

    ra_deg: float
    dec_deg: float
    angle_deg: float
    parity: int = 1

    def to_plane(self, x_deg: ArrayLike, y_deg: ArrayLike) -> Points:
        """Return tangent-plane coordinates of field angles.

        Returns
        -------
        points : ndarray of shape (n, 2), arcsec
            To the east and to the north of the boresight.
        """
        x, y = np.atleast_1d(np.asarray(x_deg, np.float64)), np.atleast_1d(np.asarray(y_deg, np.float64))
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        east = self.parity * cos * x + sin * y
        north = -self.parity * sin * x + cos * y
        return np.asarray(3600.0 * np.column_stack((east, north)))


def project(ra_deg: ArrayLike, dec_deg: ArrayLike, *, centre_ra_deg: float, centre_dec_deg: float) -> Points:
    """Return gnomonic coordinates about a centre.

    Returns
    -------
    points : ndarray of shape (n, 2), arcsec
        To the east and to the north; NaN for positions a quarter of the sky away or more.
    """
    ra = np.radians(np.atleast_1d(np.asarray(ra_deg, np.float64)) - centre_ra_deg)
    dec = np.radians(np.atleast_1d(np.asarray(dec_deg, np.float64)))
    sin0, cos0 = math.sin(math.radians(centre_dec_deg)), math.cos(math.radians(centre_dec_deg))
    depth = sin0 * np.sin(dec) + cos0 * np.cos(dec) * np.cos(ra)
    depth = np.where(depth > 1e-6, depth, np.nan)
    east = np.cos(dec) * np.sin(ra) / depth
    north = (cos0 * np.sin(dec) - sin0 * np.cos(dec) * np.cos(ra)) / depth
    return np.asarray(np.degrees(np.column_stack((east, north))) * 3600.0)


def unproject(points: Points, *, centre_ra_deg: float, centre_dec_deg: float) -> tuple[Points, Points]:
    """Return right ascension and declination [deg] of gnomonic coordinates; the inverse of `project`."""
    east, north = np.radians(points[:, 0] / 3600.0), np.radians(points[:, 1] / 3600.0)
    sin0, cos0 = math.sin(math.radians(centre_dec_deg)), math.cos(math.radians(centre_dec_deg))
    depth = cos0 - north * sin0
    ra = centre_ra_deg + np.degrees(np.arctan2(east, depth))
    dec = np.degrees(np.arctan2(sin0 + north * cos0, np.hypot(east, depth)))
    return np.mod(ra, 360.0), dec


def pixels_to_field_angle(camera: Camera, detector: Detector, x_px: ArrayLike, y_px: ArrayLike) -> tuple[Points, ...]:
    """Return the field angles [deg] of pixels, along the focal plane's axes."""
    return focal_plane_to_field_angle(camera, *detector_to_focal_plane(detector, x_px, y_px))


@dataclass(frozen=True)
class Match:
    """A similarity that takes points onto others, and who is who.

    Attributes
    ----------
    shift_arcsec : ndarray of shape (2,)
        By how much the points' centre moves, east and north.
    rotation_deg
        From north through west (counter-clockwise as x to the right, y up).
    scale
        Size of the others over that of the points.
    rms_arcsec
        Per coordinate, after the fit.
    first, second : ndarray of shape (n,), intp
        Indices of matched pairs.
    chance
        How likely so many pairs agree by accident.
    """

    shift_arcsec: NDArray[np.float64]
    rotation_deg: float
    scale: float
    rms_arcsec: float
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    chance: float
    origin: NDArray[np.float64]

    def apply(self, points: Points) -> Points:
        """Return the points where the match takes them."""
        cos = self.scale * math.cos(math.radians(self.rotation_deg))
        sin = self.scale * math.sin(math.radians(self.rotation_deg))
        x, y = (points - self.origin).T
        turned = np.column_stack((cos * x - sin * y, sin * x + cos * y))
        return np.asarray(self.origin + self.shift_arcsec + turned)


def _vote(points: Points, others: Points, radius_arcsec: float) -> tuple[NDArray[np.float64], float] | None:
    """Return the offset most pairs agree on, and its chance; None without pairs."""
    near = cKDTree(others).query_ball_point(points, radius_arcsec)
    pairs = [
        others[np.asarray(found, dtype=np.intp)] - point for point, found in zip(points, near, strict=True) if found
    ]
    if not pairs:
        return None
    offsets = np.concatenate(pairs)
    tree = cKDTree(offsets)
    votes = tree.query_ball_point(offsets, VOTE_RADIUS_ARCSEC, return_length=True)
    best = int(np.argmax(votes))
    expected = len(offsets) * min(1.0, (VOTE_RADIUS_ARCSEC / radius_arcsec) ** 2)
    chance = float(min(1.0, pdtrc(max(votes[best] - 1, 0), expected) * len(offsets)))
    centre = np.median(offsets[tree.query_ball_point(offsets[best], VOTE_RADIUS_ARCSEC)], axis=0)
    return np.asarray(centre), chance


def _pair(moved: Points, others: Points, radius_arcsec: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return who is whose nearest, both ways, within a radius."""
    distance, there = (np.asarray(v) for v in cKDTree(others).query(moved, distance_upper_bound=radius_arcsec))
    back = np.asarray(cKDTree(moved).query(others)[1])
    first = np.flatnonzero(np.isfinite(distance))
    first = first[back[there[first]] == first]
    return first, np.asarray(there[first], dtype=np.intp)


def match_points(points: Points, others: Points, *, radius_arcsec: float) -> Match | None:
    """Find the shift, small rotation and scale that take points onto others.

    Parameters
    ----------
    points, others : ndarray of shape (n, 2), (m, 2), arcsec
        Brightest first; the 200 and 500 brightest vote, all are matched.
    radius_arcsec
        Largest shift looked for.

    Returns
    -------
    match
        None if no offset stands out from chance.
    """
    if len(points) < MIN_MATCHES or len(others) < MIN_MATCHES:
        return None
    vote = _vote(points[:N_STARS], others[:N_CATALOGUE], radius_arcsec)
    if vote is None or vote[1] > MAX_CHANCE:
        return None
    none = np.zeros(0, dtype=np.intp)
    match = Match(vote[0], 0.0, 1.0, math.nan, none, none, vote[1], points.mean(axis=0))
    for radius in MATCH_RADIUS_ARCSEC:
        first, second = _pair(match.apply(points), others, radius)
        if len(first) < MIN_MATCHES:
            return None
        match = _fit(points, others, replace(match, first=first, second=second))
    return match


def _fit(points: Points, others: Points, match: Match) -> Match:
    """Fit the similarity to the pairs, outliers clipped once at three times their median distance."""
    first, second = match.first, match.second
    for _ in range(2):
        here, there = points[first] - match.origin, others[second] - match.origin
        centre, target = here.mean(axis=0), there.mean(axis=0)
        u, v = (here - centre).T, (there - target).T
        norm = float(np.sum(u[0] ** 2 + u[1] ** 2))
        a = float(np.sum(u[0] * v[0] + u[1] * v[1])) / norm if norm > 0 else 1.0
        b = float(np.sum(u[0] * v[1] - u[1] * v[0])) / norm if norm > 0 else 0.0
        shift = target - np.array([a * centre[0] - b * centre[1], b * centre[0] + a * centre[1]])
        match = replace(match, shift_arcsec=shift, rotation_deg=math.degrees(math.atan2(b, a)), scale=math.hypot(a, b))
        away = match.apply(points[first]) - others[second]
        distance = np.hypot(*away.T)
        near = distance <= max(3.0 * float(np.median(distance)), 1e-6)
        if near.all() or np.count_nonzero(near) < MIN_MATCHES:
            break
        first, second, away = first[near], second[near], away[near]
    return replace(match, first=first, second=second, rms_arcsec=float(np.sqrt(np.mean(away**2))))


@dataclass(frozen=True)
class Solution:
    """The sky of one CCD.

    Attributes
    ----------
    ra_deg, dec_deg : ndarray of shape (n,)
        Of the stars.
    catalogue
        Its stars on and around the CCD.
    match
        Stars to catalogue, in the tangent plane of the boresight.
    pointing
        The orientation it was found with; `turned` tells if that is not the header's.
    turned
        Empty, or how the header's orientation had to be changed.
    """

    ra_deg: Points
    dec_deg: Points
    catalogue: CatalogueStars
    match: Match
    pointing: Pointing
    turned: str


def orientations(pointing: Pointing) -> list[tuple[Pointing, str]]:
    """Return the header's orientation first, then what else its angle could have meant."""
    found = [(pointing, "")]
    seen = {(pointing.angle_deg % 360.0, pointing.parity)}
    for parity in (pointing.parity, -pointing.parity):
        for sign in (1, -1):
            for quarter in (0, 90, 180, 270):
                angle = (sign * pointing.angle_deg + quarter) % 360.0
                if (angle, parity) in seen:
                    continue
                seen.add((angle, parity))
                words = [
                    "mirrored" if parity != pointing.parity else "",
                    "angle negated" if sign < 0 else "",
                    f"turned by {quarter} deg" if quarter else "",
                ]
                turned = replace(pointing, angle_deg=angle, parity=parity)
                found.append((turned, ", ".join(word for word in words if word)))
    return found


def solve(
    camera: Camera,
    detector: Detector,
    pointing: Pointing,
    x_px: ArrayLike,
    y_px: ArrayLike,
    stars_around: Callable[[float, float, float], CatalogueStars],
    *,
    radius_arcsec: float = 60.0,
) -> Solution | None:
    """Find the stars of a CCD in a catalogue.

    Parameters
    ----------
    x_px, y_px : array of shape (n,)
        Stars, brightest first.
    stars_around
        Gives the catalogue stars around a right ascension and declination, within a radius [deg].
    radius_arcsec
        Largest pointing error.

    Returns
    -------
    solution
        None if they cannot be matched. The header's orientation is tried first; then, as headers have told mirrored
        and turned angles before, the others it could have meant.
    """
    centre = {"centre_ra_deg": pointing.ra_deg, "centre_dec_deg": pointing.dec_deg}
    angles = pixels_to_field_angle(camera, detector, x_px, y_px)
    middle = pixels_to_field_angle(camera, detector, (detector.width - 1) / 2, (detector.height - 1) / 2)
    half_mm = 0.5 * detector.pixel_mm * math.hypot(detector.width, detector.height)
    reach_deg = (1.02 * half_mm * camera.plate_scale_arcsec_per_mm + radius_arcsec) / 3600.0
    for oriented, turned in orientations(pointing):
        ra_deg, dec_deg = unproject(oriented.to_plane(*middle), **centre)
        catalogue = stars_around(float(ra_deg[0]), float(dec_deg[0]), reach_deg)
        points = oriented.to_plane(*angles)
        match = match_points(
            points, project(catalogue.ra_deg, catalogue.dec_deg, **centre), radius_arcsec=radius_arcsec
        )
        if match is not None:
            ra_deg, dec_deg = unproject(match.apply(points), **centre)
            return Solution(ra_deg, dec_deg, catalogue, match, oriented, turned)
    return None
