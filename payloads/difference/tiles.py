"""The grid that templates lie on: tiles of a quarter of a degree with fixed centres, the same for every camera and night.

Zones of declination, counted from the south pole, each cut into as many equal tiles of right ascension as it is quarter
degrees long. A tile's image is a tangent-plane projection about its centre, north up and east to the left, and a little
larger than the tile, so that what lies on an edge can be interpolated from one image alone.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from payloads.quality.astrometry import project, unproject
from payloads.quality.catalogue import separation_deg

TILE_DEG = 0.25
"""A detector of LSSTCam is 0.22 degrees wide: it overlaps four tiles, rarely five or six."""
N_ZONES = 720
MARGIN_PX = 8
"""What the interpolation reaches beyond an edge, and a little more."""
N_EDGE = 9
"""Points along a tile's edge that say how large its image has to be."""


class Tile(NamedTuple):
    """A tile: its zone from the south pole, and its place in the zone eastward from right ascension 0."""

    zone: int
    number: int

    @property
    def name(self) -> str:
        """Its name in a store.

        Examples
        --------
        >>> Tile(240, 12).name
        'z240_t0012'
        """
        return f"z{self.zone:03d}_t{self.number:04d}"


def tiles_of_zone(zone: int) -> int:
    """Return how many tiles a zone is cut into.

    Examples
    --------
    >>> tiles_of_zone(360), tiles_of_zone(240), tiles_of_zone(0)
    (1440, 1251, 7)
    """
    nearest_deg = min(abs(zone * TILE_DEG - 90.0), abs((zone + 1) * TILE_DEG - 90.0))
    return math.ceil(360.0 * math.cos(math.radians(nearest_deg)) / TILE_DEG)


def tile_of(ra_deg: float, dec_deg: float) -> Tile:
    """Return the tile of a position.

    Examples
    --------
    >>> tile_of(60.0, -30.0), tile_of(-0.0001, 90.0)
    (Tile(zone=240, number=208), Tile(zone=719, number=6))
    """
    zone = min(max(math.floor((dec_deg + 90.0) / TILE_DEG), 0), N_ZONES - 1)
    n_tiles = tiles_of_zone(zone)
    return Tile(zone, min(math.floor(ra_deg % 360.0 / 360.0 * n_tiles), n_tiles - 1))


def tiles_of(ra_deg: ArrayLike, dec_deg: ArrayLike) -> list[Tile]:
    """Return the tiles of many positions, each once, in order."""
    places = zip(np.ravel(np.asarray(ra_deg)), np.ravel(np.asarray(dec_deg)), strict=True)
    return sorted({tile_of(float(ra), float(dec)) for ra, dec in places if math.isfinite(ra) and math.isfinite(dec)})


def tiles_around(ra_deg: float, dec_deg: float, low_deg: float, high_deg: float) -> list[Tile]:
    """Return the tiles that a ring about a position touches, and perhaps a few beside it; the nearest first."""
    first = math.floor((dec_deg - high_deg + 90.0) / TILE_DEG)
    last = math.floor((dec_deg + high_deg + 90.0) / TILE_DEG)
    found: list[tuple[float, Tile]] = []
    for zone in range(max(first, 0), min(last, N_ZONES - 1) + 1):
        n_tiles = tiles_of_zone(zone)
        numbers = np.arange(n_tiles)
        centre_dec = (zone + 0.5) * TILE_DEG - 90.0
        away = separation_deg(ra_deg, dec_deg, (numbers + 0.5) * 360.0 / n_tiles, np.full(n_tiles, centre_dec))
        near = (away >= low_deg - TILE_DEG) & (away <= high_deg + TILE_DEG)
        found += [(float(away[number]), Tile(zone, int(number))) for number in numbers[near]]
    return [tile for _, tile in sorted(found)]


@dataclass(frozen=True)
class TileGeometry:
    """Where the pixels of a tile's image are on the sky; (0, 0) is the centre of the lower left one."""

    ra_deg: float
    dec_deg: float
    scale_arcsec: float
    width: int
    height: int

    def to_px(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return pixel coordinates of positions, arrays of shape (n,); NaN on the other side of the sky."""
        points = project(ra_deg, dec_deg, centre_ra_deg=self.ra_deg, centre_dec_deg=self.dec_deg)
        return (
            (self.width - 1) / 2 - points[:, 0] / self.scale_arcsec,
            (self.height - 1) / 2 + points[:, 1] / self.scale_arcsec,
        )

    def to_sky(self, x_px: ArrayLike, y_px: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return right ascension and declination of pixels [deg], arrays of shape (n,)."""
        east = ((self.width - 1) / 2 - np.ravel(np.asarray(x_px, np.float64))) * self.scale_arcsec
        north = (np.ravel(np.asarray(y_px, np.float64)) - (self.height - 1) / 2) * self.scale_arcsec
        return unproject(np.column_stack((east, north)), centre_ra_deg=self.ra_deg, centre_dec_deg=self.dec_deg)

    def cards(self) -> dict[str, Any]:
        """Return the cards of its world coordinate system."""
        step_deg = self.scale_arcsec / 3600.0
        return {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CRVAL1": self.ra_deg,
            "CRVAL2": self.dec_deg,
            "CRPIX1": (self.width + 1) / 2,
            "CRPIX2": (self.height + 1) / 2,
            "CD1_1": -step_deg,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "CD2_2": step_deg,
            "RADESYS": "ICRS",
        }


def geometry_of(tile: Tile, scale_arcsec: float) -> TileGeometry:
    """Return the geometry of a tile's image, with pixels of a given size."""
    n_tiles = tiles_of_zone(tile.zone)
    west, east = tile.number / n_tiles * 360.0, (tile.number + 1) / n_tiles * 360.0
    south, north = tile.zone * TILE_DEG - 90.0, (tile.zone + 1) * TILE_DEG - 90.0
    ra0, dec0 = (west + east) / 2, (south + north) / 2
    along, up = np.linspace(west, east, N_EDGE), np.linspace(south, north, N_EDGE)
    ra = np.concatenate((along, along, np.full(N_EDGE, west), np.full(N_EDGE, east)))
    dec = np.concatenate((np.full(N_EDGE, south), np.full(N_EDGE, north), up, up))
    reach = np.abs(project(ra, dec, centre_ra_deg=ra0, centre_dec_deg=dec0)).max(axis=0) / scale_arcsec
    width, height = (2 * (math.ceil(half) + MARGIN_PX) + 1 for half in reach)
    return TileGeometry(ra0, dec0, scale_arcsec, width, height)
