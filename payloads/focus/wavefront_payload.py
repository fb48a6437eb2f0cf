"""The payload ``wavefront``: Zernikes of the donuts of one detector. Seconds per donut: for its own pool."""

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.focus.donut import Donut, DonutSettings, donut_columns, donut_metrics, measure_donuts
from payloads.focus.stamps import DonutFile, FittedDonut, to_fits
from payloads.focus.wavefront import NOLL, DonutStamp, WavefrontFit, bin_stamp, fit_wavefront
from payloads.plugin import Frame, Metric, PayloadConfig, ProductFile
from payloads.quality.standard import band_of
from rapid.camera.geometry import detector_to_focal_plane, focal_plane_to_field_angle, rotate_to_focal_plane
from rapid.camera.models import Camera, Detector, Purpose
from rapid.errors import PayloadError
from rapid.exposure.models import ExposureInfo, ImageType

STAMPS = "wavefront_stamps"
"""Name of the file with the fitted donuts, for the joint fit of an intra- and an extra-focal one."""


class WavefrontConfig(PayloadConfig):
    """How to fit wavefronts."""

    n_donuts: int = Field(default=3, ge=1, description="Brightest donuts that are fitted, each alone.")
    bin_factor: int = Field(default=2, ge=1, le=4, description="Binning of the stamps; 1 takes four times as long.")
    optics: str | None = Field(default=None, description="Camera whose optics to use; None: the frame's own.")
    keep_binned: bool = Field(default=False, description="Keep the binned image; the pipeline beside this one does.")
    donut: DonutSettings = Field(default=DonutSettings(), description="How donuts are found.")


def cut_donut(
    image: NDArray[np.float32], donut: Donut, *, camera: Camera, detector: Detector, camera_mm: float, bin_factor: int
) -> DonutStamp | None:
    """Cut out a donut for the fit, turned into the camera's axes.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32, electron
    camera_mm
        FOCUSZ: how far the camera was moved, positive beyond focus. A wavefront half adds its own height.

    Returns
    -------
    stamp
        None where it would reach beyond the image.

    Notes
    -----
    The camera's axes (CCS) are those of the focal plane (DVCS) with x and y exchanged, hence the transposition.
    """
    half = math.ceil(0.7 * donut.diameter_px) + 2 * bin_factor
    x0, y0 = round(donut.x) - half, round(donut.y) - half
    size = 2 * half + 1
    if x0 < 0 or y0 < 0 or x0 + size > image.shape[1] or y0 + size > image.shape[0]:
        return None
    cut = image[y0 : y0 + size, x0 : x0 + size].astype(np.float64)
    grid_y, grid_x = np.mgrid[:size, :size]
    beyond = cut[np.hypot(grid_x - (donut.x - x0), grid_y - (donut.y - y0)) > 0.65 * donut.diameter_px]
    level = float(np.median(beyond))
    scatter = 1.4826 * float(np.median(np.abs(beyond - level)))
    turned = rotate_to_focal_plane(cut - level, detector).T
    x_mm, y_mm = detector_to_focal_plane(detector, donut.x, donut.y)
    x_deg, y_deg = focal_plane_to_field_angle(camera, x_mm, y_mm)
    return DonutStamp(
        image=bin_stamp(turned, bin_factor),
        sky_variance=max(scatter**2, 1.0) * bin_factor**2,
        pixel_m=detector.pixel_mm * 1e-3 * bin_factor,
        pixel_arcsec=camera.plate_scale_arcsec_per_mm * detector.pixel_mm * bin_factor,
        # Heights count against the light: the half at -1.5 mm is the extra-focal one.
        defocus_mm=-detector.z_mm if detector.purpose is Purpose.WAVEFRONT else 0.0,
        camera_mm=camera_mm,
        thx_rad=math.radians(float(y_deg)),
        thy_rad=math.radians(float(x_deg)),
    )


def camera_defocus_mm(info: ExposureInfo, detector: Detector) -> float:
    """Return how far the camera was moved out of focus on purpose [mm], positive beyond focus.

    FOCUSZ, but not for a corner sensor of a sky image: there it is where the telescope was thought to be in focus, and
    how far from that it was is what the sensor is to tell.
    """
    if detector.purpose is Purpose.WAVEFRONT and info.image_type is not ImageType.CWFS:
        return 0.0
    return info.focus_z_mm or 0.0


class Wavefront:
    """Zernikes of a detector's donuts.

    Writes the metrics ``z4_um`` to ``z22_um`` with their errors ``z4_error_um`` ..., means over the donuts by
    weight, ``wavefront_fwhm_arcsec`` (what the aberrations add to the seeing), ``wavefront_blur_arcsec`` (the
    atmosphere), ``wavefront_chi2_per_dof``, ``n_wavefronts``; those of ``donut``; the tables ``donuts`` and ``wavefronts``;
    and the file ``wavefront_stamps`` (`payloads.focus.stamps`).
    """

    name: ClassVar[str] = "wavefront"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = WavefrontConfig

    def __init__(self, config: WavefrontConfig) -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Fit the frame's donuts.

        Raises
        ------
        PayloadError
            Raised without an assembled image, a known defocus, a band, optics of the camera, or the packages danish
            and batoid.
        """
        assembled = frame.assembled("wavefront")
        band = band_of(frame.info.band, frame.info.physical_filter)
        if band is None:
            raise PayloadError("a wavefront needs to know the filter", physical_filter=frame.info.physical_filter)
        image = np.ascontiguousarray(assembled, dtype=np.float32) * np.float32(frame.gain)
        found = measure_donuts(
            image,
            frame.mask,
            camera=frame.camera,
            detector=frame.detector,
            info=frame.info,
            settings=self.config.donut,
        )
        if found.commanded_um is None:
            raise PayloadError("a wavefront needs to know on which side of focus the image was taken")
        frame.metrics.update(donut_metrics(found))
        frame.tables["donuts"] = donut_columns(found)
        optics = self.config.optics or frame.camera.name
        fits: list[tuple[Donut, WavefrontFit]] = []
        kept: list[FittedDonut] = []
        for donut in found.donuts:
            stamp = cut_donut(
                image,
                donut,
                camera=frame.camera,
                detector=frame.detector,
                camera_mm=camera_defocus_mm(frame.info, frame.detector),
                bin_factor=self.config.bin_factor,
            )
            if stamp is None:
                continue
            fit = fit_wavefront([stamp], camera=optics, band=band)
            if fit.converged:
                fits.append((donut, fit))
                kept.append(FittedDonut(stamp, donut.x, donut.y, fit.fwhm_arcsec[0], fit.zernikes_um))
            if len(fits) == self.config.n_donuts:
                break
        frame.metrics.update(wavefront_metrics([fit for _, fit in fits]))
        frame.tables["wavefronts"] = {
            "x": [donut.x for donut, _ in fits],
            "y": [donut.y for donut, _ in fits],
            **{f"z{j}_um": [float(fit.zernikes_um[k]) for _, fit in fits] for k, j in enumerate(NOLL)},
            "fwhm_arcsec": [fit.fwhm_arcsec[0] for _, fit in fits],
            "chi2_per_dof": [fit.chi2_per_dof for _, fit in fits],
        }
        if kept:
            content = DonutFile(optics, band, frame.detector.name, tuple(kept))
            frame.files[STAMPS] = ProductFile(to_fits(content), "fits", "application/fits")
        if not self.config.keep_binned:
            frame.binned = None


def mean_wavefront(fits: list[WavefrontFit]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of several fits of one wavefront, and its standard errors [um].

    The mean is weighted by the fits' own errors; its error is theirs or, if larger, the scatter's.
    """
    values = np.array([fit.zernikes_um for fit in fits])
    # Where the model misses something its errors are too small by what chi2 says.
    inflation = np.array([math.sqrt(max(fit.chi2_per_dof, 1.0)) for fit in fits])
    weights = (np.maximum(np.array([fit.errors_um for fit in fits]), 1e-4) * inflation[:, None]) ** -2.0
    errors = 1.0 / np.sqrt(weights.sum(axis=0))
    if len(fits) > 1:
        errors = np.maximum(errors, values.std(axis=0, ddof=1) / math.sqrt(len(fits)))
    return (values * weights).sum(axis=0) / weights.sum(axis=0), errors


def wavefront_metrics(fits: list[WavefrontFit]) -> dict[str, Metric]:
    """Return the mean wavefront of several fits; None where there is none."""
    metrics: dict[str, Metric] = {"n_wavefronts": len(fits)}
    zernikes, errors = mean_wavefront(fits) if fits else (None, None)
    for k, j in enumerate(NOLL):
        metrics[f"z{j}_um"] = None if zernikes is None else float(zernikes[k])
        metrics[f"z{j}_error_um"] = None if errors is None else float(errors[k])
    keys = ("wavefront_fwhm_arcsec", "wavefront_blur_arcsec", "wavefront_chi2_per_dof")
    columns = (
        [fit.aberration_fwhm_arcsec for fit in fits],
        [fit.fwhm_arcsec[0] for fit in fits],
        [fit.chi2_per_dof for fit in fits],
    )
    metrics |= {key: float(np.median(column)) if column else None for key, column in zip(keys, columns, strict=True)}
    return metrics
