"""Aperture fluxes of stars, and what they say about the instrument."""

from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray

from payloads.quality.stars import Stars

MAGNITUDE = 2.5 / np.log(10.0)
"""Magnitudes per unit of natural logarithm."""


@dataclass(frozen=True)
class Fluxes:
    """Aperture photometry of n sources; arrays of shape (n,), float64.

    Attributes
    ----------
    flux, error
        Sum above the local background in the aperture, and its noise [electron].
    snr
        Best possible signal to noise ratio, for a Gaussian of the source's size (what magnitude limits use).
    """

    flux: NDArray[np.float64]
    error: NDArray[np.float64]
    snr: NDArray[np.float64]


def measure_fluxes(
    image: NDArray[np.float32], stars: Stars, *, radius_px: float, pixel_noise: float, gain: float = 1.0
) -> Fluxes:
    """Sum up stars in a circular aperture with their own local background.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
        With its sky; C-contiguous, native byte order. Not modified.
    radius_px
        Radius of the aperture; exact overlap of pixels and circle.
    pixel_noise
        Noise of one sky pixel, unit of the image.
    gain
        Electron per unit of the image.
    """
    if len(stars) == 0:
        return Fluxes(np.zeros(0), np.zeros(0), np.zeros(0))
    total, _, _ = sep.sum_circle(image, stars.x, stars.y, radius_px, subpix=0)
    area = np.pi * radius_px**2
    flux = (total - area * stars.background) * gain
    noise = pixel_noise * gain
    signal = np.maximum(flux, 0.0)
    error = np.sqrt(signal + area * noise**2)
    optimal = np.sqrt(signal + 4.0 * np.pi * stars.sigma_px**2 * noise**2)
    snr = np.where(optimal > 0.0, flux / np.maximum(optimal, 1e-30), 0.0)
    return Fluxes(flux, error, snr)
