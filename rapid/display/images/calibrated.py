"""Take sky and throughput out of a detector's image, as the calibrated mosaic does at its binning.

The sky is that of the very same mesh, measured on the stored binned image; the factor is the one the mosaic was drawn with.
So whoever zooms in from the mosaic goes on in the same numbers.
"""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from rapid.gather.pieces import sky_mesh


def calibrate(pixels: NDArray[np.float32], binned: NDArray[np.float32], *, factor: float = 1.0) -> NDArray[np.float32]:
    """Return an image without its sky, times a factor.

    Parameters
    ----------
    pixels : ndarray of shape (ny, nx), float32, electron
        Not modified.
    binned : ndarray of shape (ny // n, nx // n), float32, electron
        The same image in bins of n by n pixels, n a whole number; what is left over at its upper and right edge takes the sky of the nearest bin.
    factor
        E.g. nanojansky per electron.

    Raises
    ------
    ValueError
        Raised if the binned image is larger than the image, or empty.
    """
    ny, nx = pixels.shape
    if not binned.size or binned.shape[0] > ny or binned.shape[1] > nx:
        raise ValueError(f"{binned.shape} is no binning of {pixels.shape}")
    n_y, n_x = ny // binned.shape[0], nx // binned.shape[1]
    covered = (binned.shape[1] * n_x, binned.shape[0] * n_y)
    sky = np.asarray(cv2.resize(sky_mesh(binned), covered, interpolation=cv2.INTER_LINEAR), np.float32)
    below, right = ny - sky.shape[0], nx - sky.shape[1]
    if below or right:
        sky = np.asarray(cv2.copyMakeBorder(sky, 0, below, 0, right, cv2.BORDER_REPLICATE), np.float32)
    np.subtract(pixels, sky, out=sky)
    if factor != 1.0:
        sky *= np.float32(factor)
    return sky


def calibrated_id(image_id: str, *, binned_key: str, factor: float, unit: str) -> str:
    """Return the identity of a calibrated image: another summary may have another scale."""
    made_of = f"{image_id} {binned_key} {factor!r} {unit}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:20]
