"""The telescope for the wavefront fit: pupil mask, intrinsic aberrations, and what a Zernike does to the seeing.

Needs the optional packages batoid and danish.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import galsim
import numpy as np
import yaml
from numpy.typing import NDArray

from rapid.errors import PayloadError

R_OUTER_M = 4.18
R_INNER_M = 2.5498
"""Edges of the Rubin pupil; Zernikes are annular on it."""
FOCAL_LENGTH_M = 10.31
J_MAX = 28
"""Where the series of intrinsic aberrations is cut; what is beyond blurs by less than a pixel."""
N_RINGS = 20
"""Rings of triangles in the pupil model."""
OPTICS = {
    "LSSTCam": ("LSST_{band}.yaml", "RubinObsc.yaml", "LSSTCamera"),
    "LSSTComCam": ("ComCam_{band}.yaml", "ComCamObsc.yaml", "ComCam"),
}
"""By camera, batoid's prescription, danish's pupil mask, and what the camera is called in the prescription."""
WAVELENGTH_M = {"u": 365e-9, "g": 476e-9, "r": 619e-9, "i": 754e-9, "z": 868e-9, "y": 973e-9}


def _packages() -> tuple[Any, Any]:
    try:
        import batoid
        import danish
    except ImportError as error:
        raise PayloadError("the wavefront fit needs the packages batoid and danish") from error
    return batoid, danish


@lru_cache(maxsize=4)
def pupil_mask(camera: str) -> dict[str, Any]:
    """Return the edges of the pupil as danish describes them.

    Raises
    ------
    PayloadError
        Raised for a camera without optics, or if danish is not installed.
    """
    _, danish = _packages()
    path = Path(danish.datadir) / _optics(camera)[1]
    mask: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return mask


def _optics(camera: str) -> tuple[str, str, str]:
    if camera not in OPTICS:
        raise PayloadError(f"no optics are known for camera {camera}", camera=camera)
    return OPTICS[camera]


@lru_cache(maxsize=8)
def _telescope(camera: str, band: str) -> Any:
    batoid, _ = _packages()
    return batoid.Optic.fromYaml(_optics(camera)[0].format(band=band))


@lru_cache(maxsize=512)
def intrinsic_zernikes_m(
    camera: str, *, band: str, defocus_mm: float, thx_rad: float, thy_rad: float, camera_mm: float = 0.0
) -> tuple[float, ...]:
    """Return the wavefront of the perfect telescope with a displaced detector or camera.

    Parameters
    ----------
    defocus_mm
        Displacement of the detector in the camera, positive beyond focus.
    camera_mm
        Displacement of the whole camera, lenses and all, positive beyond focus. Its Z4 is that of the detector's to
        1 %, but off the axis lenses that moved add astigmatism and coma: 0.19 and 0.11 um at 1.4 degrees.
    thx_rad, thy_rad
        Field angle along the camera's axes.

    Returns
    -------
    zernikes : 29 floats, metre
        Annular, Noll index; the first is not used.
    """
    batoid, _ = _packages()
    if band not in WAVELENGTH_M:
        raise PayloadError(f"no optics are known for band {band}", band=band)
    shifted = _telescope(camera, band).withGloballyShiftedOptic(_optics(camera)[2], [0.0, 0.0, camera_mm * 1e-3])
    shifted = shifted.withGloballyShiftedOptic("Detector", [0.0, 0.0, defocus_mm * 1e-3])
    waves = batoid.zernikeTA(
        shifted,
        thx_rad,
        thy_rad,
        WAVELENGTH_M[band],
        jmax=J_MAX,
        eps=R_INNER_M / R_OUTER_M,
        focal_length=FOCAL_LENGTH_M,
    )
    return tuple(float(value) for value in np.asarray(waves) * WAVELENGTH_M[band])


@lru_cache(maxsize=8)
def z4_um_per_mm(camera: str, band: str) -> float:
    """Return the focus term that a millimetre of detector displacement makes on the axis [um/mm].

    Examples
    --------
    >>> round(z4_um_per_mm("LSSTCam", "r"), 1)
    15.8
    """
    far, near = (
        intrinsic_zernikes_m(camera, band=band, defocus_mm=dz, thx_rad=0.0, thy_rad=0.0)[4] for dz in (0.1, -0.1)
    )
    return (far - near) * 1e6 / 0.2


def donut_factory(camera: str, *, pixel_m: float) -> Any:
    """Return danish's image maker for a camera and pixel size.

    The forward one, which maps triangles of the pupil to the focal plane. The inverse one looks for the pupil point
    of every pixel: at the corners of the field the edge of an extra-focal donut folds over, a pixel there has
    several, and fits come to rest hundreds of nanometres off.
    """
    _, danish = _packages()
    return danish.DonutTriangleFactory(
        R_outer=R_OUTER_M,
        R_inner=R_INNER_M,
        mask_params=pupil_mask(camera),
        focal_length=FOCAL_LENGTH_M,
        pixel_scale=pixel_m,
        nrad=N_RINGS,
    )


@lru_cache(maxsize=64)
def fwhm_per_um(j: int) -> float:
    """Return how much FWHM one micrometre of a Zernike adds in quadrature [arcsec/um].

    Examples
    --------
    >>> round(fwhm_per_um(4), 3), round(fwhm_per_um(5), 3)
    (0.751, 0.271)

    Notes
    -----
    2.355 times the rms of the wavefront's slope along one axis, over the annular pupil and less its mean (which moves
    the image and does not blur it).
    """
    coefficients = np.zeros(j + 1)
    coefficients[j] = 1e-6
    zernike = galsim.zernike.Zernike(coefficients, R_outer=R_OUTER_M, R_inner=R_INNER_M)
    line = np.linspace(-R_OUTER_M, R_OUTER_M, 201)
    u, v = np.meshgrid(line, line)
    inside = (np.hypot(u, v) <= R_OUTER_M) & (np.hypot(u, v) >= R_INNER_M)
    slope_x = zernike.gradX(u[inside], v[inside])
    slope_y = zernike.gradY(u[inside], v[inside])
    rms = math.sqrt((float(slope_x.var()) + float(slope_y.var())) / 2.0)
    return math.sqrt(8.0 * math.log(2.0)) * math.degrees(rms) * 3600.0


def fwhm_of_zernikes(indices: tuple[int, ...], zernikes_um: NDArray[np.float64]) -> float:
    """Return the FWHM that aberrations add to the seeing in quadrature [arcsec]."""
    return math.sqrt(sum((fwhm_per_um(j) * float(z)) ** 2 for j, z in zip(indices, zernikes_um, strict=True)))
