"""A mosaic as a pyramid of tiles, in one product: a zip archive without compression.

One object, since a night of a thousand exposures would else make half a million small ones. The archive holds
``info.json`` (a `PyramidInfo`) and ``{scale}/{column}_{row}.jpg``, where ``scale`` is the number of the detectors' own
pixels to a side of a tile's pixel: 8, 16, 32 ... Tiles that show no detector are left out. Full resolution is not in
it: it is made from the raw when somebody zooms in.
"""

import io
import zipfile
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rapid.camera.geometry import extent_mm
from rapid.camera.models import Camera
from rapid.errors import NotFoundError, StoreError
from rapid.gather.mosaic import BINNING, MAX_SIDE, halve, to_jpeg
from rapid.gather.stretch import BACKGROUND, Stretch

TILE_PX = 512
"""A screen needs a dozen of them, and each is one request of 50 kB."""
QUALITY = 82
INFO = "info.json"


class Level(BaseModel):
    """One scale of a pyramid."""

    model_config = ConfigDict(frozen=True)

    scale: int = Field(ge=1, description="Detector pixels to a side of a picture's pixel.")
    width: int
    height: int
    columns: int
    rows: int


class PyramidInfo(BaseModel):
    """What a viewer has to know of a pyramid."""

    model_config = ConfigDict(frozen=True)

    tile_px: int
    pixel_mm: float = Field(description="Side of a detector's pixel [mm].")
    extent_mm: tuple[float, float, float, float] = Field(description="x_min, x_max, y_min, y_max of the picture [mm].")
    levels: tuple[Level, ...] = Field(description="Finest first.")
    stretch: Stretch
    unit: str = ""
    factors: dict[int, float] = Field(default_factory=dict, description="Scale that was applied to each detector.")


@dataclass(frozen=True)
class Drawn:
    """A mosaic as it is stored: the whole in one picture, and its tiles."""

    picture: bytes
    tiles: bytes


def draw_pyramid(
    camera: Camera,
    mosaic: NDArray[np.uint8],
    stretch: Stretch,
    *,
    unit: str = "",
    factors: dict[int, float] | None = None,
) -> Drawn:
    """Cut a mosaic at the binned scale into tiles of every scale.

    Parameters
    ----------
    mosaic : ndarray of shape (ny, nx), uint8
        As from `rapid.gather.mosaic.draw_mosaic`.
    stretch
        What it was drawn with.
    """
    buffer = io.BytesIO()
    levels: list[Level] = []
    picture = None
    scale = BINNING
    image = mosaic
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        while True:
            height, width = image.shape
            columns, rows = -(-width // TILE_PX), -(-height // TILE_PX)
            levels.append(Level(scale=scale, width=width, height=height, columns=columns, rows=rows))
            for row in range(rows):
                for column in range(columns):
                    tile = image[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
                    if (tile != BACKGROUND).any():
                        _write(archive, tile_name(scale, column, row), to_jpeg(tile, quality=QUALITY))
            if picture is None and max(image.shape) <= MAX_SIDE:
                picture = to_jpeg(image)
            if max(image.shape) <= TILE_PX:
                break
            image, scale = halve(image), scale * 2
        info = PyramidInfo(
            tile_px=TILE_PX,
            pixel_mm=camera.detectors[0].pixel_mm,
            extent_mm=extent_mm(camera),
            levels=tuple(levels),
            stretch=stretch,
            unit=unit,
            factors=factors or {},
        )
        _write(archive, INFO, info.model_dump_json().encode())
    return Drawn(picture=picture if picture is not None else to_jpeg(image), tiles=buffer.getvalue())


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # A fixed date: the same pixels make the same bytes (invariant I3).
    archive.writestr(zipfile.ZipInfo(name, datetime(1980, 1, 1).timetuple()[:6]), data)  # noqa: DTZ001 - zip has no zone


def tile_name(scale: int, column: int, row: int) -> str:
    """Return a tile's name in the archive."""
    return f"{scale}/{column}_{row}.jpg"


class Pyramid:
    """A stored pyramid.

    Parameters
    ----------
    data
        The archive.

    Raises
    ------
    StoreError
        Raised if it is none, or damaged.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
            self.info = PyramidInfo.model_validate_json(self._archive.read(INFO))
        except (zipfile.BadZipFile, KeyError, ValidationError, EOFError) as error:
            raise StoreError(f"not a tile pyramid: {error}") from error
        self._names = frozenset(self._archive.namelist())

    def tile(self, scale: int, column: int, row: int) -> bytes | None:
        """Return a tile, None where there is no detector.

        Raises
        ------
        NotFoundError
            Raised beyond the pyramid's edges.
        """
        level = next((level for level in self.info.levels if level.scale == scale), None)
        name = tile_name(scale, column, row)
        if level is None or not (0 <= column < level.columns and 0 <= row < level.rows):
            raise NotFoundError("tile", name)
        if name not in self._names:
            return None
        try:
            return self._archive.read(name)
        except zipfile.BadZipFile as error:
            raise StoreError(f"damaged tile {name}: {error}") from error
