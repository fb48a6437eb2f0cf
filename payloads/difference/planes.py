"""An image made ready to be warped or subtracted: binned, its sky taken off, holes filled; and where its pixels go."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray

from payloads.difference.kernels import GOOD, LANCZOS, NOTHING, bin_planes, fill_holes, warp
from payloads.difference.sky_map import SkyMap
from payloads.difference.template_file import BLOCK_PX, Template
from payloads.difference.tiles import TileGeometry
from payloads.mask import CR, EDGE, NOT_FOR_STATISTICS, SAT, SUSPECT
from rapid.errors import PayloadError

REJECT = NOT_FOR_STATISTICS | CR | EDGE | SUSPECT
"""Pixels whose light is not to be trusted; near saturation a star is flattened before it is flagged."""
BACKGROUND_BOX_PX = 128
"""Side of a cell of the sky, pixels of the detector; that of payload `quality`."""
NODE_STEP_PX = 32
"""Every so many pixels it is reckoned where they lie; the distortion bends by less than 1e-4 pixel between."""
FILL_REACH_PX = 3
MIN_GOOD_FRACTION = 0.01

Places = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Planes:
    """A binned image without its sky.

    Attributes
    ----------
    image, variance : ndarray of shape (height, width), float32
        Sums over blocks of ``factor`` pixels squared, and their variance.
    quality : ndarray of the same shape, uint8
        As in `payloads.difference.kernels`.
    sky_variance
        Median variance of a good block.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    quality: NDArray[np.uint8]
    factor: int
    sky_variance: float


def choose_factor(pixel_arcsec: float, template_arcsec: float) -> int:
    """Return the side of the blocks that are as large as a template's pixels, or a little smaller.

    Examples
    --------
    >>> choose_factor(0.2, 0.4), choose_factor(0.0957, 0.4), choose_factor(0.26, 0.4)
    (2, 4, 1)
    """
    return max(1, int(template_arcsec / pixel_arcsec + 0.25))


def prepare_planes(
    image: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.int32], *, factor: int
) -> Planes:
    """Bin an image, fill its holes and subtract its sky.

    Parameters
    ----------
    image, variance : ndarray of shape (height, width), float32
    mask : ndarray of the same shape, int32
        Planes of `payloads.mask`.

    Raises
    ------
    PayloadError
        Raised if hardly a pixel is good.
    """
    shape = (image.shape[0] // factor, image.shape[1] // factor)
    sums, variances, quality = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.uint8)
    bin_planes(
        np.ascontiguousarray(image, np.float32),
        np.ascontiguousarray(variance, np.float32),
        np.ascontiguousarray(mask, np.int32),
        REJECT,
        SAT,
        factor,
        sums,
        variances,
        quality,
    )
    not_good = quality != GOOD
    n_good = not_good.size - int(np.count_nonzero(not_good))
    if n_good < max(MIN_GOOD_FRACTION * not_good.size, 1):
        raise PayloadError("hardly a pixel of the image is good")
    cell = max(8, BACKGROUND_BOX_PX // factor)
    sky = sep.Background(sums, mask=not_good, bw=min(cell, shape[1]), bh=min(cell, shape[0]), fw=3, fh=3)
    sums -= sky.back(dtype=np.float32)
    fill_holes(sums, quality, FILL_REACH_PX)
    sky_variance = (
        float(np.median(variances[::4, ::4][~not_good[::4, ::4]])) if n_good > 64 else float(np.median(variances))
    )
    # A block without a good pixel has no variance of its own.
    variances[variances <= 0] = sky_variance
    return Planes(sums, variances, quality, factor, sky_variance)


def node_grid(shape: tuple[int, int], place: Callable[[NDArray[np.float64], NDArray[np.float64]], Places]) -> Places:
    """Return where every 32nd pixel of an image lies in another.

    Parameters
    ----------
    shape
        Height and width of the image.
    place
        Returns the coordinates in the other of pixels of the first, arrays of shape (n,).

    Returns
    -------
    node_x, node_y : ndarray of shape (n_rows + 1, n_columns + 1), float64
    """
    rows, columns = (-(-size // NODE_STEP_PX) + 1 for size in shape)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64) * NODE_STEP_PX
    node_x, node_y = place(x.ravel(), y.ravel())
    return node_x.reshape(rows, columns), node_y.reshape(rows, columns)


def empty_planes(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Return image, variance and quality with nothing in them yet."""
    return np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.full(shape, NOTHING, np.uint8)


def warp_to_tile(
    planes: Planes,
    sky_map: SkyMap,
    geometry: TileGeometry,
    out: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    """Resample a detector's image onto a tile's, where the tile has nothing yet."""
    factor = planes.factor

    def place(x: NDArray[np.float64], y: NDArray[np.float64]) -> Places:
        x_px, y_px = sky_map.to_px(*geometry.to_sky(x, y))
        return (x_px - (factor - 1) / 2) / factor, (y_px - (factor - 1) / 2) / factor

    nodes = node_grid((geometry.height, geometry.width), place)
    image, variance, quality = out
    warp(planes.image, planes.variance, 1, planes.quality, *nodes, NODE_STEP_PX, LANCZOS, image, variance, quality)


def warp_to_detector(
    template: Template,
    sky_map: SkyMap,
    factor: int,
    out: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    """Resample a template onto a detector's binned image, where there is nothing yet."""

    def place(x: NDArray[np.float64], y: NDArray[np.float64]) -> Places:
        sky = sky_map.to_sky(x * factor + (factor - 1) / 2, y * factor + (factor - 1) / 2)
        return template.geometry.to_px(*sky)

    nodes = node_grid(out[0].shape, place)
    image, variance, quality = out
    warp(
        template.image,
        template.variance,
        BLOCK_PX,
        template.quality,
        *nodes,
        NODE_STEP_PX,
        LANCZOS,
        image,
        variance,
        quality,
    )
