"""The donuts that a detector's wavefront was fitted to, as a file: what the joint fit of two detectors starts from."""

import io
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from payloads.focus.wavefront import NOLL, DonutStamp

FORMAT = 1
"""Written into the file; a reader refuses another one."""


@dataclass(frozen=True)
class FittedDonut:
    """One donut and what its own fit said.

    Attributes
    ----------
    x, y
        Centre in the detector [px].
    zernikes_um : ndarray of shape (19,), float64
        Z4 to Z22 of the fit to this donut alone.
    """

    stamp: DonutStamp
    x: float
    y: float
    fwhm_arcsec: float
    zernikes_um: NDArray[np.float64]


@dataclass(frozen=True)
class DonutFile:
    """The fitted donuts of one detector of one exposure, brightest first.

    Attributes
    ----------
    optics
        Camera whose optics were used.
    """

    optics: str
    band: str
    detector_name: str
    donuts: tuple[FittedDonut, ...]


def to_fits(content: DonutFile) -> bytes:
    """Return a FITS file: one image per donut, in the camera's axes, its facts in the header."""
    primary = fits.PrimaryHDU()
    primary.header["FORMAT"] = (FORMAT, "of a file of fitted donuts")
    primary.header["OPTICS"] = content.optics
    primary.header["BAND"] = content.band
    primary.header["DETNAME"] = content.detector_name
    hdus = fits.HDUList([primary])
    for donut in content.donuts:
        stamp = donut.stamp
        hdu = fits.ImageHDU(stamp.image.astype(np.float32))
        hdu.header["BUNIT"] = "electron"
        hdu.header["SKYVAR"] = (stamp.sky_variance, "[electron2] of a pixel without the star")
        hdu.header["PIXEL"] = (stamp.pixel_m, "[m] side of a pixel")
        hdu.header["PIXARC"] = (stamp.pixel_arcsec, "[arcsec] side of a pixel")
        hdu.header["DETZ"] = (stamp.defocus_mm, "[mm] detector, positive beyond focus")
        hdu.header["CAMZ"] = (stamp.camera_mm, "[mm] camera, positive beyond focus")
        hdu.header["THX"] = (stamp.thx_rad, "[rad] field angle, camera axes")
        hdu.header["THY"] = (stamp.thy_rad, "[rad] field angle, camera axes")
        hdu.header["X"] = (donut.x, "[px] in the detector")
        hdu.header["Y"] = (donut.y, "[px] in the detector")
        hdu.header["FWHM"] = (donut.fwhm_arcsec, "[arcsec] blur of the donut's own fit")
        for j, value in zip(NOLL, donut.zernikes_um, strict=True):
            hdu.header[f"Z{j}"] = (float(value), "[um] of the donut's own fit")
        hdus.append(hdu)
    out = io.BytesIO()
    hdus.writeto(out)
    return out.getvalue()


def from_fits(data: bytes) -> DonutFile:
    """Read a file of `to_fits`.

    Raises
    ------
    ValueError
        Raised if it is no such file.
    """
    try:
        with fits.open(io.BytesIO(data), memmap=False) as hdus:
            primary = hdus[0].header
            if primary["FORMAT"] != FORMAT:
                raise ValueError(f"a donut file of format {primary['FORMAT']}, not {FORMAT}")
            return DonutFile(
                optics=primary["OPTICS"],
                band=primary["BAND"],
                detector_name=primary["DETNAME"],
                donuts=tuple(_donut_of(hdu.header, hdu.data) for hdu in hdus[1:]),
            )
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"not a file of fitted donuts: {error}") from error


def _donut_of(header: fits.Header, image: NDArray[np.float32]) -> FittedDonut:
    stamp = DonutStamp(
        image=np.asarray(image, dtype=np.float64),
        sky_variance=header["SKYVAR"],
        pixel_m=header["PIXEL"],
        pixel_arcsec=header["PIXARC"],
        defocus_mm=header["DETZ"],
        camera_mm=header["CAMZ"],
        thx_rad=header["THX"],
        thy_rad=header["THY"],
    )
    return FittedDonut(
        stamp=stamp,
        x=header["X"],
        y=header["Y"],
        fwhm_arcsec=header["FWHM"],
        zernikes_um=np.array([header[f"Z{j}"] for j in NOLL], dtype=np.float64),
    )
