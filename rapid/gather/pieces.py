"""The pieces of a mosaic: binned images as workers stored them, and the same with sky and throughput taken out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from rapid.results.models import Scalar

CARD, BLOCK = 80, 2880
"""A FITS header is made of cards of 80 bytes, in blocks of 2880."""
CELL_PX = 64
"""Side of the cells that the sky is measured in [binned px]: 512 detector pixels, much larger than a star's halo."""
NJY_ZERO_MAG = 31.4
"""AB magnitude of one nanojansky."""
MAX_ZERO_POINT_ERROR_MAG = 0.05
"""A detector whose own zero point is less sure than this takes the focal plane's."""


def read_binned(data: bytes) -> NDArray[np.float32]:
    """Return the image of a binned FITS product.

    Only the one form that workers write is understood (a primary image of 32-bit floats without scaling): a general
    reader takes a millisecond per detector, this one a tenth of it.

    Returns
    -------
    image : ndarray of shape (ny, nx), float32, native byte order

    Raises
    ------
    ValueError
        Raised for anything else, and for a file that is not whole.
    """
    facts: dict[str, str] = {}
    for at in range(0, len(data) - CARD + 1, CARD):
        card = data[at : at + CARD]
        if card[:8] == b"END     ":
            break
        if card[8:10] == b"= ":
            facts[card[:8].decode("ascii", "replace").rstrip()] = (
                card[10:].decode("ascii", "replace").split("/")[0].strip()
            )
    else:
        raise ValueError("no image: the FITS header has no end")
    if facts.get("SIMPLE") != "T" or facts.get("BITPIX") != "-32" or facts.get("NAXIS") != "2":
        raise ValueError("no image of 32-bit floats")
    if "BSCALE" in facts or "BZERO" in facts:
        raise ValueError("a scaled image")
    width, height = int(facts["NAXIS1"]), int(facts["NAXIS2"])
    begin = (at // BLOCK + 1) * BLOCK
    if width <= 0 or height <= 0 or len(data) < begin + 4 * width * height:
        raise ValueError(f"{len(data)} bytes hold no image of {width} x {height}")
    return np.frombuffer(data, ">f4", width * height, begin).reshape(height, width).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _cell_medians(image: NDArray[np.float32], cell: int, mesh: NDArray[np.float32]) -> None:
    ny, nx = image.shape
    values = np.empty((cell // 2 + 1) ** 2, np.float32)
    for row in range(mesh.shape[0]):
        for column in range(mesh.shape[1]):
            n = 0
            # Every second pixel of every second row: a quarter of the work, and the median's noise is a fiftieth of one
            # pixel's all the same.
            for y in range(row * ny // mesh.shape[0], (row + 1) * ny // mesh.shape[0], 2):
                for x in range(column * nx // mesh.shape[1], (column + 1) * nx // mesh.shape[1], 2):
                    if np.isfinite(image[y, x]) and n < len(values):
                        values[n] = image[y, x]
                        n += 1
            mesh[row, column] = np.median(values[:n]) if n else np.float32(np.nan)


def sky_mesh(image: NDArray[np.float32], *, cell_px: int = CELL_PX) -> NDArray[np.float32]:
    """Return the sky of a binned image on a coarse grid: the medians of its cells.

    Returns
    -------
    mesh : ndarray of shape (n_rows, n_columns), float32
        One value per cell of about ``cell_px`` to a side; cells without a finite pixel take the image's median.
    """
    ny, nx = image.shape
    mesh = np.empty((max(round(ny / cell_px), 1), max(round(nx / cell_px), 1)), dtype=np.float32)
    _cell_medians(np.ascontiguousarray(image), max(-(-ny // mesh.shape[0]), -(-nx // mesh.shape[1])), mesh)
    empty = ~np.isfinite(mesh)
    if empty.any():
        mesh[empty] = np.median(mesh[~empty]) if not empty.all() else 0.0
    return mesh


def without_sky(image: NDArray[np.float32], *, factor: float = 1.0) -> NDArray[np.float32]:
    """Return a binned image without its sky, times a factor.

    Parameters
    ----------
    image : ndarray of shape (ny, nx), float32
        Not modified.
    factor
        E.g. nanojansky per electron.
    """
    mesh = sky_mesh(image)
    sky: NDArray[Any] = cv2.resize(mesh, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    np.subtract(image, sky, out=sky)
    if factor != 1.0:
        sky *= np.float32(factor)
    return sky


@dataclass(frozen=True)
class FluxScale:
    """What one electron is, by detector.

    Attributes
    ----------
    unit
        ``nJy`` with zero points in AB magnitudes, else ``e⁻``: scaled to the focal plane's own throughput.
    factors
        By detector number.
    """

    unit: str
    factors: dict[int, float]


def flux_scale(metrics: Mapping[int, Mapping[str, Scalar]], *, exposure_time_s: float | None) -> FluxScale:
    """Return the scales that bring all detectors to one flux.

    Parameters
    ----------
    metrics
        By detector; ``zero_point_mag`` is the magnitude of one electron per second. A detector without a good one takes
        the median of the others; without any, everything stays in electron.
    """
    own: dict[int, float] = {}
    systems = set()
    for number, found in metrics.items():
        value, error = found.get("zero_point_mag"), found.get("zero_point_error_mag")
        if _is_number(value) and (not _is_number(error) or float(error or 0) <= MAX_ZERO_POINT_ERROR_MAG):
            own[number] = float(value)  # type: ignore[arg-type]  # _is_number has seen to it
            systems.add(found.get("zero_point_system"))
    if not own:
        return FluxScale("e⁻", dict.fromkeys(metrics, 1.0))
    typical = float(np.median(list(own.values())))
    is_absolute = systems == {"AB"} and exposure_time_s is not None and exposure_time_s > 0
    zero, seconds = (NJY_ZERO_MAG, exposure_time_s) if is_absolute and exposure_time_s else (typical, 1.0)
    factors = {number: 10 ** (0.4 * (zero - own.get(number, typical))) / seconds for number in metrics}
    return FluxScale("nJy" if is_absolute else "e⁻", factors)


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
