"""A guider file with a star whose motion is known."""

import io

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray


def make_stamps(
    x_px: NDArray, y_px: NDArray, *, sigma_px: float = 2.0, flux_adu: float = 20_000.0, shape=(100, 50), seed: int = 3
) -> NDArray[np.int32]:
    """Return stamps of a Gaussian star on a level of 1000 ADU with noise of 10."""
    rng = np.random.default_rng(seed)
    ys, xs = np.indices(shape)
    stamps = [
        1000
        + rng.normal(0, 10, shape)
        + flux_adu / (2 * np.pi * sigma_px**2) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma_px**2))
        for x, y in zip(x_px, y_px, strict=True)
    ]
    return np.round(stamps).astype(np.int32)


def make_guider_raw(stamps: NDArray[np.int32], *, step_s: float = 0.5, seq_num: int = 1, said: bool = True) -> bytes:
    """Return the bytes of a guider file of LSSTCam's R00_SG0 with these stamps."""
    header = fits.Header()
    header["INSTRUME"] = "LSSTCam"
    header["TELESCOP"] = "Simonyi Survey Telescope"
    header["OBSID"] = f"MC_O_20261120_{seq_num:06d}"
    header["CAMCODE"] = "MC"
    header["CONTRLLR"] = "O"
    header["DAYOBS"] = "20261120"
    header["SEQNUM"] = seq_num
    header["RAFTBAY"] = "R00"
    header["CCDSLOT"] = "SG0"
    header["IMGTYPE"] = "OBJECT"
    header["DATE-BEG"] = "2026-11-21T03:00:00.000"
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    for place, stamp in enumerate(stamps):
        hdu = fits.CompImageHDU(stamp, name="IMAGE", compression_type="RICE_1")
        if said:
            hdu.header["STMPTMJD"] = 61000.0 + place * step_s / 86400.0
        hdus.append(hdu)
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


GUIDER_NAME = "MC_O_20261120_000001_R00_SG0_guider.fits"
