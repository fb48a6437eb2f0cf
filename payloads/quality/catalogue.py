"""A reference catalogue on disk: stars in tiles of about one degree, as FITS or ECSV tables.

A directory holds ``catalogue.yaml`` (name, magnitude system, bands, date, source) and the tiles,
``tiles/d{declination zone}_r{tile in the zone}.fits`` or ``.ecsv``: zones of one degree of declination, each cut into
as many equal tiles of right ascension as it is degrees long. Columns: ``ra_deg``, ``dec_deg`` (ICRS) and
``mag_{band}``; NaN where a star has no magnitude. Any table tool can write it; `write_catalogue` does.

The system is ``AB``, or ``instrument`` for a relative reference: magnitudes that this instrument measured itself on a
good night, -2.5 log10 of electron per second, reduced to airmass 1.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rapid.errors import ConfigurationError, StoreError

N_CACHED = 64
"""Tiles kept in memory: four fields of nine, and a few kilobytes to megabytes each."""
FACTS = "catalogue.yaml"


class CatalogueFacts(BaseModel):
    """What ``catalogue.yaml`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    system: Literal["AB", "instrument"]
    bands: tuple[str, ...] = Field(min_length=1)
    made_on: date
    source: str = ""


@dataclass(frozen=True)
class CatalogueStars:
    """Stars of a catalogue, brightest first; arrays of shape (n,), float64."""

    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    mag: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ra_deg)


def tiles_of_zone(zone: int) -> int:
    """Return how many tiles a zone of declination is cut into.

    Examples
    --------
    >>> tiles_of_zone(0), tiles_of_zone(-30), tiles_of_zone(89)
    (360, 315, 7)
    """
    nearest = min(abs(zone), abs(zone + 1))
    return math.ceil(360.0 * math.cos(math.radians(nearest)))


def tile_name(zone: int, tile: int) -> str:
    """Return a tile's file name, without its ending.

    Examples
    --------
    >>> tile_name(-30, 52)
    'd-30_r052'
    """
    return f"d{zone:+03d}_r{tile:03d}"


def tile_of(ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return zone and tile of positions."""
    dec = np.asarray(dec_deg, dtype=np.float64)
    zone = np.clip(np.floor(dec), -90, 89).astype(np.int64)
    n_tiles = np.array([tiles_of_zone(int(z)) for z in np.atleast_1d(zone)]).reshape(zone.shape)
    tile = np.floor(np.mod(np.asarray(ra_deg, dtype=np.float64), 360.0) / 360.0 * n_tiles).astype(np.int64)
    return zone, np.minimum(tile, n_tiles - 1)


def tiles_around(ra_deg: float, dec_deg: float, radius_deg: float) -> Iterator[tuple[int, int]]:
    """Yield zone and tile of all tiles that a circle touches, and perhaps a few beside it."""
    low, high = max(-90.0, dec_deg - radius_deg), min(89.999999, dec_deg + radius_deg)
    for zone in range(math.floor(low), math.floor(high) + 1):
        n_tiles = tiles_of_zone(zone)
        # Widest where the zone is nearest to the pole; beyond it every tile is near.
        reach = min(90.0, abs(dec_deg) + radius_deg)
        if reach > 89.0 or radius_deg >= 90.0:
            yield from ((zone, tile) for tile in range(n_tiles))
            continue
        half = math.degrees(math.asin(min(1.0, math.sin(math.radians(radius_deg)) / math.cos(math.radians(dec_deg)))))
        first, last = math.floor((ra_deg - half) / 360 * n_tiles), math.floor((ra_deg + half) / 360 * n_tiles)
        yield from (
            (zone, tile) for tile in sorted({t % n_tiles for t in range(first, min(last, first + n_tiles) + 1)})
        )


def separation_deg(
    ra_deg: float, dec_deg: float, other_ra_deg: ArrayLike, other_dec_deg: ArrayLike
) -> NDArray[np.float64]:
    """Return angular distances, by the haversine: exact for small ones."""
    d1, d2 = math.radians(dec_deg), np.radians(np.asarray(other_dec_deg, dtype=np.float64))
    half_ra = np.radians(np.asarray(other_ra_deg, dtype=np.float64) - ra_deg) / 2
    h = np.sin((d2 - d1) / 2) ** 2 + math.cos(d1) * np.cos(d2) * np.sin(half_ra) ** 2
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))))


class ReferenceCatalogue:
    """A catalogue directory, opened; keeps the tiles it read last.

    Parameters
    ----------
    directory
        Where ``catalogue.yaml`` is.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, if the directory is no catalogue.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        path = self.directory / FACTS
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            self.facts = CatalogueFacts.model_validate(document)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigurationError("reference_catalogue", f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or FACTS
            raise ConfigurationError(f"{path}: {field}", first["msg"]) from error
        self._tiles: OrderedDict[tuple[int, int], Table | None] = OrderedDict()

    def stars_around(self, ra_deg: float, dec_deg: float, radius_deg: float, band: str) -> CatalogueStars:
        """Return the stars with a magnitude within a circle; none where the catalogue has no tile.

        Raises
        ------
        StoreError
            Raised, naming the tile, if one cannot be read.
        """
        ras, decs, mags = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
        for zone, tile in tiles_around(ra_deg, dec_deg, radius_deg):
            table = self._tile(zone, tile)
            if table is None or f"mag_{band}" not in table.colnames:
                continue
            ras.append(np.asarray(table["ra_deg"], dtype=np.float64))
            decs.append(np.asarray(table["dec_deg"], dtype=np.float64))
            mags.append(np.ma.filled(np.ma.asarray(table[f"mag_{band}"], dtype=np.float64), np.nan))
        ra, dec, mag = np.concatenate(ras), np.concatenate(decs), np.concatenate(mags)
        near = np.isfinite(mag) & (separation_deg(ra_deg, dec_deg, ra, dec) <= radius_deg)
        order = np.flatnonzero(near)[np.argsort(mag[near], kind="stable")]
        return CatalogueStars(ra[order], dec[order], mag[order])

    def _tile(self, zone: int, tile: int) -> Table | None:
        key = (zone, tile)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        table = self._read(zone, tile)
        self._tiles[key] = table
        if len(self._tiles) > N_CACHED:
            self._tiles.popitem(last=False)
        return table

    def _read(self, zone: int, tile: int) -> Table | None:
        for ending, form in ((".fits", "fits"), (".ecsv", "ascii.ecsv")):
            path = self.directory / "tiles" / (tile_name(zone, tile) + ending)
            if not path.is_file():
                continue
            try:
                table = Table.read(path, format=form)
            except Exception as error:
                # astropy raises whatever its reader met; the tile is unreadable all the same.
                reason = str(error).partition("\n")[0]
                raise StoreError(f"catalogue tile {path} cannot be read: {reason}") from error
            if not {"ra_deg", "dec_deg"} <= set(table.colnames):
                raise StoreError(f"catalogue tile {path} has no columns ra_deg and dec_deg")
            return table
        return None


def write_catalogue(
    directory: Path,
    ra_deg: ArrayLike,
    dec_deg: ArrayLike,
    magnitudes: Mapping[str, ArrayLike],
    *,
    name: str,
    system: Literal["AB", "instrument"],
    made_on: date,
    source: str = "",
) -> int:
    """Write a catalogue as FITS tiles into a new or empty directory.

    Parameters
    ----------
    ra_deg, dec_deg : array of shape (n,), ICRS
    magnitudes
        Arrays of shape (n,) by band; NaN where a star has none.

    Returns
    -------
    n_tiles

    Raises
    ------
    ConfigurationError
        Raised if the directory holds something already.
    ValueError
        Raised if lengths differ or a position is not one.
    """
    ra, dec = np.asarray(ra_deg, dtype=np.float64), np.asarray(dec_deg, dtype=np.float64)
    columns = {band: np.asarray(values, dtype=np.float64) for band, values in magnitudes.items()}
    if any(values.shape != ra.shape for values in (dec, *columns.values())):
        raise ValueError("positions and magnitudes differ in length")
    if not (np.isfinite(ra).all() and (np.abs(dec) <= 90).all()):
        raise ValueError("a right ascension is not finite, or a declination is beyond 90 degrees")
    facts = CatalogueFacts(name=name, system=system, bands=tuple(columns), made_on=made_on, source=source)
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise ConfigurationError("directory", f"{directory} is not empty")
    (directory / "tiles").mkdir(parents=True, exist_ok=True)
    zones, tiles = tile_of(ra, dec)
    # One sort, then slices: a sky of tiles is not searched once per tile.
    key = zones * 1000 + tiles
    order = np.argsort(key, kind="stable")
    edges = [0, *(np.flatnonzero(np.diff(key[order])) + 1).tolist(), len(key)] if len(key) else []
    for first, last in pairwise(edges):
        rows = order[first:last]
        table = Table({"ra_deg": np.mod(ra[rows], 360.0), "dec_deg": dec[rows]})
        for band, values in columns.items():
            table[f"mag_{band}"] = values[rows].astype(np.float32)
        table.write(directory / "tiles" / f"{tile_name(int(zones[rows[0]]), int(tiles[rows[0]]))}.fits")
    text = yaml.safe_dump(facts.model_dump(mode="json"), sort_keys=False)
    # Last: a directory without it is no catalogue, so that a half-written one is not taken for one.
    (directory / FACTS).write_text(text, encoding="utf-8")
    return max(len(edges) - 1, 0)
