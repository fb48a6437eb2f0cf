"""The payload ``spectrum``: a quick look at a slitless spectrum."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from payloads.plugin import Frame, PayloadConfig
from payloads.spectrum.kernels import extract, find_trace, find_zero_order, wavelengths_of


class SpectrumQuickLook:
    """Trace and light of the brightest spectrum, by pixel, and by wavelength if the dispersion is told.

    Writes the table ``spectrum`` and the metrics ``spectrum_*``; they are None, and the table is left out, where no trace
    stands out.
    """

    name: ClassVar[str] = "spectrum"
    version: ClassVar[str] = "2"

    class Config(PayloadConfig):
        """How the light lies."""

        nm_per_px: float | None = Field(
            default=None,
            allow_inf_nan=False,
            description="Dispersion of the first order; negative if the wavelength grows towards smaller pixels. None "
            "assigns no wavelengths.",
        )
        zero_order_px: float | None = Field(
            default=None,
            allow_inf_nan=False,
            description="Where the zeroth order is along the dispersion; looked for on the line of the trace if None.",
        )
        dispersion: Literal["x", "y"] = Field(default="y", description="Axis along which light is dispersed.")
        half_width_px: int = Field(default=10, ge=1, le=200, description="Of the aperture, across the dispersion.")
        gap_px: int = Field(default=6, ge=0, le=200, description="Between aperture and background.")
        side_px: int = Field(default=20, ge=5, le=500, description="Width of the background, on each side.")
        threshold_sigma: float = Field(default=8.0, gt=0, description="How far a trace must stand out.")

        @field_validator("nm_per_px")
        @classmethod
        def _disperses(cls, nm_per_px: float | None) -> float | None:
            if nm_per_px == 0.0:
                raise ValueError("light of all wavelengths on one pixel is no spectrum: leave it out for none")
            return nm_per_px

    def __init__(self, config: "SpectrumQuickLook.Config") -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Find and extract the spectrum.

        Raises
        ------
        PayloadError
            Raised if no payload has assembled the image yet.
        """
        config, assembled = self.config, frame.assembled("spectrum")
        image = assembled if config.dispersion == "y" else np.ascontiguousarray(assembled.T)
        unit = "e" if frame.unit == "electron" else "adu"
        names = (f"spectrum_flux_max_{unit}", "spectrum_snr_median", "spectrum_trace_px", "spectrum_tilt",
                 "spectrum_fwhm_px", f"spectrum_background_{unit}", "spectrum_zero_order_px")  # fmt: skip
        frame.metrics.update(dict.fromkeys(names))
        trace = find_trace(image, threshold_sigma=config.threshold_sigma)
        frame.metrics["spectrum_found"] = trace is not None
        frame.applied.append("spectrum")
        if trace is None:
            return
        found = extract(image, trace, half_width_px=config.half_width_px, gap_px=config.gap_px, side_px=config.side_px)
        good = np.isfinite(found.flux) & (found.noise > 0)
        frame.metrics.update(
            {
                f"spectrum_flux_max_{unit}": float(found.flux[good].max()) if good.any() else None,
                "spectrum_snr_median": float(np.median(found.flux[good] / found.noise[good])) if good.any() else None,
                "spectrum_trace_px": float(np.median(trace.centre_px)),
                "spectrum_tilt": trace.tilt,
                "spectrum_fwhm_px": trace.fwhm_px,
                f"spectrum_background_{unit}": float(np.median(found.background)),
            }
        )
        frame.tables["spectrum"] = {
            "along_px": list(range(len(found.flux))),
            "across_px": [float(value) for value in trace.centre_px],
            f"flux_{unit}": [float(value) if np.isfinite(value) else None for value in found.flux],
            f"background_{unit}": [float(value) for value in found.background],
            f"noise_{unit}": [float(value) for value in found.noise],
        }
        zero_order_px = config.zero_order_px
        if zero_order_px is None:
            zero_order_px = find_zero_order(found.flux, fwhm_px=trace.fwhm_px)
        frame.metrics["spectrum_zero_order_px"] = zero_order_px
        if config.nm_per_px is not None and zero_order_px is not None:
            wavelengths = wavelengths_of(len(found.flux), zero_order_px=zero_order_px, nm_per_px=config.nm_per_px)
            frame.tables["spectrum"]["wavelength_nm"] = [float(nm) if np.isfinite(nm) else None for nm in wavelengths]
