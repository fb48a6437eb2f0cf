"""A calibrated image as one FITS file: image, mask and variance, in the order that the field's software expects them.

HDU 0 has the facts and no pixels; then come ``IMAGE``, ``MASK`` (with a card ``MP_NAME`` for each plane's bit) and
``VARIANCE``, each compressed by tiles.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from payloads.mask import MASK_PLANES

PLANES = ("image", "mask", "variance")
DITHER_SEED = 1
"""The same image makes the same file: what is put twice is there once."""


@dataclass(frozen=True)
class CalibratedImage:
    """A calibrated image, as read from its file.

    Attributes
    ----------
    image : ndarray of shape (height, width), float32
        In the unit that the header's ``BUNIT`` names.
    mask : ndarray of shape (height, width), int32
    variance : ndarray of shape (height, width), float32, unit squared
    header
        Facts of exposure and detector.
    mask_planes
        Bit number of every plane of the mask.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    variance: NDArray[np.float32]
    header: fits.Header
    mask_planes: Mapping[str, int] = field(default_factory=dict)


def write_calibrated(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    variance: NDArray[np.float32],
    *,
    facts: Mapping[str, Any],
    noise_fraction: float,
) -> bytes:
    """Return a calibrated image as the bytes of a FITS file.

    Parameters
    ----------
    image, mask, variance : ndarray of shape (height, width)
        Not modified.
    facts
        Cards of the primary header; values may be ``(value, comment)``.
    noise_fraction
        Image and variance are rounded to this part of the noise of each row, with a dither that readers take off
        again; 0 keeps every bit, and makes a file of three to four times the size.

    Raises
    ------
    ValueError
        Raised if the planes are of different shapes.
    """
    if not image.shape == mask.shape == variance.shape:
        raise ValueError(f"planes of different shapes: {image.shape}, {mask.shape}, {variance.shape}")
    primary = fits.PrimaryHDU()
    for key, value in facts.items():
        primary.header[key] = value
    pixels: dict[str, Any] = (
        {
            "compression_type": "RICE_1",
            "quantize_level": 1.0 / noise_fraction,
            "quantize_method": 2,  # zeros stay zeros
            "dither_seed": DITHER_SEED,
        }
        if noise_fraction
        else {"compression_type": "GZIP_2", "quantize_level": 0.0}
    )
    planes = fits.CompImageHDU(np.ascontiguousarray(mask, np.int32), name="MASK", compression_type="RICE_1")
    for name, bit in MASK_PLANES.items():
        planes.header[f"HIERARCH MP_{name}"] = bit
    hdus = fits.HDUList(
        [
            primary,
            fits.CompImageHDU(np.ascontiguousarray(image, np.float32), name="IMAGE", **pixels),
            planes,
            fits.CompImageHDU(np.ascontiguousarray(variance, np.float32), name="VARIANCE", **pixels),
        ]
    )
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def read_calibrated(data: bytes) -> CalibratedImage:
    """Read a calibrated image from the bytes of its file.

    Raises
    ------
    KeyError
        Raised if a plane is missing.
    OSError
        Raised if it is no FITS file.
    """
    with fits.open(io.BytesIO(data), memmap=False) as hdus:
        image, mask, variance = (hdus[name.upper()].data for name in PLANES)
        planes = {
            key.removeprefix("MP_"): int(value) for key, value in hdus["MASK"].header.items() if key.startswith("MP_")
        }
        return CalibratedImage(image, mask, variance, hdus[0].header.copy(), planes)


def read_plane(data: bytes, plane: str) -> NDArray[Any]:
    """Read one plane, ``image``, ``mask`` or ``variance``; raises as `read_calibrated`."""
    with fits.open(io.BytesIO(data), memmap=False) as hdus:
        found: NDArray[Any] = hdus[plane.upper()].data
        return found
