"""One template as a FITS file: facts (what it was made of), pixels with their world coordinates, and stars.

HDU 0 has the facts and no pixels; then come ``IMAGE`` with its world coordinates, ``VARIANCE``, ``QUALITY``, ``COUNTS``
(exposures that a pixel is the mean of), the table ``STARS`` and ``PROVENANCE``, JSON as bytes.
"""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from payloads.difference.kernels import NOTHING
from payloads.difference.tiles import Tile, TileGeometry, geometry_of
from rapid.errors import StoreError

BLOCK_PX = 8
"""Side of the blocks that a variance is kept for in memory: it is smooth but in stars, where other errors rule."""
STAR_COLUMNS = ("ra_deg", "dec_deg", "flux")
VERSION_FILE = re.compile(r"v(\d{4,})\.fits")
TILE_FOLDER = re.compile(r"z(\d{3})_t(\d{4})")


@dataclass(frozen=True)
class Template:
    """A template, in memory.

    Attributes
    ----------
    image : ndarray of shape (height, width), float32, electron per second and pixel
        Without sky, at the transparency that ``zero_point_mag`` says. Shared: not to be modified, as all arrays here.
    variance : ndarray of shape (ceil(height / 8), ceil(width / 8)), float32
        Of single pixels, the mean over blocks of 8x8.
    quality : ndarray of shape (height, width), uint8
        As in `payloads.difference.kernels`.
    stars : ndarray of shape (n, 3), float64
        Right ascension, declination [deg] and flux [electron per second], brightest first.
    """

    tile: Tile
    band: str
    version: int
    geometry: TileGeometry
    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    quality: NDArray[np.uint8]
    stars: NDArray[np.float64]
    zero_point_mag: float | None
    zero_point_system: str | None
    fwhm_arcsec: float
    exposures: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """What it takes of memory."""
        return self.image.nbytes + self.variance.nbytes + self.quality.nbytes + self.stars.nbytes


@dataclass(frozen=True)
class TemplateRecord:
    """What is known of a template without its pixels."""

    tile: Tile
    band: str
    version: int
    path: Path
    ra_deg: float
    dec_deg: float
    fwhm_arcsec: float
    zero_point_mag: float | None
    exposures: tuple[int, ...]
    fraction: float


def template_bytes(
    template: Template,
    *,
    variance: NDArray[np.float32],
    counts: NDArray[np.uint8],
    facts: dict[str, Any],
) -> bytes:
    """Return a template as the bytes of its file; the same template makes the same bytes.

    Parameters
    ----------
    variance : ndarray of the shape of the image, float32
        In full, where the template has blocks.
    counts : ndarray of the same shape, uint8
    facts
        Provenance, kept as JSON.
    """
    primary = fits.PrimaryHDU()
    cards: dict[str, Any] = {
        "TILE": template.tile.name,
        "BAND": template.band,
        "FWHM": (template.fwhm_arcsec, "[arcsec] of its stars"),
        "BUNIT": ("electron/s", "per pixel, sky subtracted"),
        "NEXP": len(template.exposures),
        "FRACTION": (float(np.mean(template.quality < NOTHING)), "of its pixels that have an image"),
    }
    if template.zero_point_mag is not None:
        cards["ZEROPT"] = (template.zero_point_mag, "magnitude of one electron per second")
        cards["ZPSYS"] = template.zero_point_system
    for key, value in cards.items():
        primary.header[key] = value
    facts = {**facts, "exposures": list(template.exposures)}
    text = np.frombuffer(json.dumps(facts, sort_keys=True).encode("ascii"), np.uint8)
    image = fits.ImageHDU(template.image, name="IMAGE")
    for key, value in template.geometry.cards().items():
        image.header[key] = value
    stars = fits.BinTableHDU.from_columns(
        [
            fits.Column(name=name, format="D", unit=unit, array=template.stars[:, column])
            for column, (name, unit) in enumerate(zip(STAR_COLUMNS, ("deg", "deg", "electron/s"), strict=True))
        ],
        name="STARS",
    )
    hdus = fits.HDUList(
        [
            primary,
            image,
            fits.ImageHDU(variance, name="VARIANCE"),
            fits.ImageHDU(template.quality, name="QUALITY"),
            fits.ImageHDU(counts, name="COUNTS"),
            stars,
            # A night has more exposures than a header has room for.
            fits.ImageHDU(text, name="PROVENANCE"),
        ]
    )
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def read_template(path: Path) -> Template:
    """Read a template's file.

    Raises
    ------
    StoreError
        Raised, naming the file, if it is no template.
    """
    try:
        with fits.open(path, memmap=True) as hdus:
            record = _record_of(path, hdus)
            image, quality = _native(hdus["IMAGE"].data, np.float32), _native(hdus["QUALITY"].data, np.uint8)
            variance = block_mean(_native(hdus["VARIANCE"].data, np.float32))
            stars = np.column_stack([np.asarray(hdus["STARS"].data[name], np.float64) for name in STAR_COLUMNS])
            system = hdus[0].header.get("ZPSYS")
            scale_arcsec = 3600.0 * float(hdus["IMAGE"].header["CD2_2"])
    except StoreError:
        raise
    except Exception as error:
        # astropy raises whatever its reader met; the template is unreadable all the same.
        raise StoreError(f"template {path} cannot be read: {str(error).partition(chr(10))[0]}") from error
    geometry = geometry_of(record.tile, round(scale_arcsec, 9))
    if image.shape != (geometry.height, geometry.width) or quality.shape != image.shape:
        raise StoreError(f"template {path} is not of the size of its tile")
    return Template(
        tile=record.tile,
        band=record.band,
        version=record.version,
        geometry=geometry,
        image=image,
        variance=variance,
        quality=quality,
        stars=stars,
        zero_point_mag=record.zero_point_mag,
        zero_point_system=system,
        fwhm_arcsec=record.fwhm_arcsec,
        exposures=record.exposures,
    )


def read_record(path: Path) -> TemplateRecord:
    """Read what a template is, without its pixels; raises as `read_template`."""
    try:
        with fits.open(path, memmap=True) as hdus:
            return _record_of(path, hdus)
    except StoreError:
        raise
    except Exception as error:
        # astropy raises whatever its reader met.
        raise StoreError(f"template {path} cannot be read: {str(error).partition(chr(10))[0]}") from error


def read_provenance(path: Path) -> dict[str, Any]:
    """Read what a template was made of, and how; raises as `read_template`."""
    try:
        with fits.open(path, memmap=True) as hdus:
            found: dict[str, Any] = json.loads(bytes(hdus["PROVENANCE"].data.tobytes()))
            return found
    except Exception as error:
        # astropy raises whatever its reader met.
        raise StoreError(f"template {path} cannot be read: {str(error).partition(chr(10))[0]}") from error


def _record_of(path: Path, hdus: fits.HDUList) -> TemplateRecord:
    header = hdus[0].header
    tile, version = TILE_FOLDER.fullmatch(str(header["TILE"])), VERSION_FILE.fullmatch(path.name)
    if tile is None or version is None or tile[0] != path.parent.name:
        raise StoreError(f"template {path} is of tile {header['TILE']}")
    zero_point = header.get("ZEROPT")
    world = hdus["IMAGE"].header
    facts = json.loads(bytes(hdus["PROVENANCE"].data.tobytes()))
    return TemplateRecord(
        tile=Tile(int(tile[1]), int(tile[2])),
        band=str(header["BAND"]),
        version=int(version[1]),
        path=path,
        ra_deg=float(world["CRVAL1"]),
        dec_deg=float(world["CRVAL2"]),
        fwhm_arcsec=float(header["FWHM"]),
        zero_point_mag=None if zero_point is None else float(zero_point),
        exposures=tuple(int(one) for one in facts["exposures"]),
        fraction=float(header["FRACTION"]),
    )


def _native(plane: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return a plane of a FITS file as the machine has its numbers: compiled loops take no others."""
    return np.array(plane, dtype=dtype, order="C")


def block_mean(plane: NDArray[np.float32], block: int = BLOCK_PX) -> NDArray[np.float32]:
    """Return the means of a plane's blocks, of their finite and positive values; those at the edges may be smaller.

    Returns
    -------
    means : ndarray of shape (ceil(height / block), ceil(width / block)), float32
        0 where a block has none.
    """
    height, width = (-(-size // block) for size in plane.shape)
    padded = np.zeros((height * block, width * block), np.float32)
    padded[: plane.shape[0], : plane.shape[1]] = np.where(np.isfinite(plane) & (plane > 0), plane, 0)
    blocks = padded.reshape(height, block, width, block)
    n = np.count_nonzero(blocks, axis=(1, 3))
    return np.asarray(blocks.sum(axis=(1, 3)) / np.maximum(n, 1), np.float32)
