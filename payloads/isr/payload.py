"""Payload ``isr``: calibrate one detector with whatever calibs there are, and say what was applied.

It never fails for want of a calib. Kinds it asks for: ``bias dark flat defects crosstalk linearity ptc``, and
``crosstalk_quadratic serial_cti brighter_fatter`` where the configuration asks (`payloads.isr.optional`). Tables:
``crosstalk`` ``{target amp: {source amp: fraction}}``, ``crosstalk_quadratic`` the same per electron; ``linearity``
``{amp: {level [electron]: what to subtract [electron]}}``; ``ptc`` ``{amp: {gain, read_noise [electron],
turnoff_electron}}``.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.isr.assemble import raw_detector
from payloads.isr.cosmic_rays import find_cosmic_rays
from payloads.isr.fused import PlanePool, calibrate_stack, run_kernels
from payloads.isr.inputs import (
    AmpLayout,
    IsrInputs,
    IsrPlanes,
    crosstalk_matrix,
    layout_of,
)
from payloads.isr.linearity import linearity_of
from payloads.isr.optional import OptionalSteps, OptionalWorkspace, apply_optional_steps
from payloads.isr.overscan_noise import scatter_reads
from payloads.isr.readout import Scratch, read_segments
from payloads.isr.statistics import measure_region
from payloads.isr.steps import run_steps
from payloads.plugin import EXCLUDED, CalibPlane, Frame, Metric
from payloads.raw.guider import measure_stamps
from payloads.raw.segments import OpenSegments, SegmentReader
from rapid.camera.models import Amp, Box
from rapid.errors import PayloadError
from rapid.exposure.fits_header import scan

N_DERIVED_KEPT = 512
"""Small things (splines, medians per amp) derived from calibs that are kept of each kind: twice a focal plane's."""
N_PLANES_KEPT = 4
"""Planes of 16 MB that are kept: a worker keeps its detector, but an amp may be switched off meanwhile."""


class IsrConfig(OptionalSteps):
    """Which corrections are made; each that needs a calib is made if there is one."""

    serial_overscan: bool = Field(default=True, description="Subtract each row's overscan level.")
    parallel_overscan: bool = Field(default=True, description="Subtract each column's overscan level.")
    gain: bool = Field(default=True, description="Convert to electron; otherwise the image stays in ADU.")
    crosstalk: bool = Field(default=True, description="Subtract what amps put into each other.")
    quadratic_crosstalk: bool = Field(
        default=False,
        description="Subtract, too, what goes with the square of their signals, with the calib crosstalk_quadratic.",
    )
    linearity: bool = Field(default=True, description="Correct the amps' non-linearity.")
    bias: bool = Field(default=True, description="Subtract the combined bias.")
    dark: bool = Field(default=True, description="Subtract the combined dark, scaled by dark time.")
    defects: bool = Field(default=True, description="Mask known bad pixels.")
    excluded_amps: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="Amps that are switched off: reason by detector and amp name. They are masked, and not measured.",
    )
    flat: bool = Field(default=True, description="Divide by the combined flat of the filter.")
    interpolate: bool = Field(default=True, description="Give masked pixels a value from their neighbours.")
    suspect_fraction: float = Field(
        default=0.9, gt=0, le=1, description="Fraction of saturation from which a pixel is SUSPECT without a PTC."
    )
    adc_max: int = Field(default=262143, gt=0, description="Largest count of the converter [ADU].")


class Isr:
    """Payload ``isr``: from raw bytes to a calibrated image with mask, variance and per-amp metrics."""

    name: ClassVar[str] = "isr"
    version: ClassVar[str] = "1"
    Config = IsrConfig

    def __init__(self, config: IsrConfig) -> None:
        self.config = config
        self._pool = PlanePool()
        self._scratch = Scratch()
        self._optional = OptionalWorkspace()
        self._derived: dict[str, OrderedDict[Any, Any]] = {}

    def warm_up(self) -> None:
        """Load or compile the kernels on a tiny detector, before the first image comes."""
        stack = np.zeros((1, 8, 16), dtype=np.int32)
        amp = Amp(
            name="C00", hdu=1, raw_width=16, raw_height=8, data=Box(x0=0, y0=0, width=8, height=4),
            serial_overscan=Box(x0=8, y0=0, width=8, height=4), parallel_overscan=Box(x0=0, y0=4, width=8, height=4),
            flip_x=False, flip_y=False, trimmed=Box(x0=0, y0=0, width=8, height=4), gain=1.0, read_noise=1.0, saturation=1e5,
        )  # fmt: skip
        layout = layout_of((amp,), height=4, width=8)
        one = np.ones(1, dtype=np.float32)
        planes = calibrate_stack(stack, IsrInputs(layout, one, one, one, one, one))
        find_cosmic_rays(planes.image, planes.variance, planes.mask, pixel_scale_arcsec=0.2)
        measure_region(planes.image, planes.mask, (slice(0, 4), slice(0, 8)))

    def run(self, frame: Frame) -> None:
        """Fill the frame's image, mask, variance, binned image and metrics.

        Raises
        ------
        PayloadError
            Raised if the frame holds no raw, or a calib is not of the detector's size.
        CorruptRawError
            Raised, naming the segment, if the raw does not hold what the camera has.
        """
        if frame.raw is None:
            raise PayloadError("the frame holds no raw to calibrate")
        structure = scan(frame.raw)
        if frame.info.is_guider:
            measure_stamps(structure, frame)
            frame.applied.append("measure_stamps")
            return
        frame.detector = raw_detector(structure, frame)
        found = OpenSegments(structure, frame.detector)
        off = self._switched_off(frame)
        inputs = self._inputs(frame, found.amps, off)
        # Let go of an image this frame may still hold from an earlier run.
        frame.image = frame.mask = frame.variance = None
        planes, readout = self._pool.take(inputs.layout, *found.shape)
        if read_segments(found, inputs.layout, readout, self._scratch):
            run_kernels(readout, inputs, planes)
        else:
            planes = run_steps(SegmentReader().read_all(found).pixels, inputs)
        frame.unit = "electron" if self.config.gain else "ADU"
        apply_optional_steps(frame, inputs, planes, self.config, self._optional, excluded=off)
        frame.image, frame.mask, frame.variance = planes.image, planes.mask, planes.variance
        frame.binned = planes.binned
        self._measure(frame, inputs, planes, off)

    def _switched_off(self, frame: Frame) -> dict[str, str]:
        """Return the amps that are masked and not measured, with the reason: those that are off, and those without calibs.

        A calib that was built while an amp was off has nothing of it. The image of an amp that is on again by now would
        be taken for a calibrated one, though nothing was subtracted from it.
        """
        config = self.config
        off: dict[str, str] = {}
        wanted = {
            "bias": config.bias and config.gain,
            "dark": config.dark and config.gain,
            "flat": config.flat,
        }
        for kind, is_wanted in wanted.items():
            calib = frame.calibs.get(kind) if is_wanted else None
            if calib is not None:
                why = f"it was switched off when {calib.calib_id} was built"
                off |= {amp: why for amp, row in calib.table.items() if row.get(EXCLUDED)}
        return off | config.excluded_amps.get(frame.detector.name, {}) | dict(frame.excluded_amps)

    def _calib(self, frame: Frame, kind: str, *, wanted: bool) -> CalibPlane | None:
        calib = frame.calibs.get(kind) if wanted else None
        if calib is not None:
            frame.calib_ids[kind] = calib.calib_id
        return calib

    def _plane(self, frame: Frame, kind: str, *, wanted: bool) -> CalibPlane | None:
        calib = self._calib(frame, kind, wanted=wanted)
        size = (frame.detector.height, frame.detector.width)
        if calib is not None and calib.image.shape != size:
            message = (
                f"{kind} {calib.calib_id} is {calib.image.shape[::-1]} px, detector {frame.detector.name} {size[::-1]}"
            )
            raise PayloadError(message, calib_id=calib.calib_id)
        return calib

    def _derive(self, kind: str, key: Any, make: Any) -> Any:
        """Return what `make` makes, kept for the next images of the same key: filters and detectors alternate."""
        kept = self._derived.setdefault(kind, OrderedDict())
        if key not in kept:
            kept[key] = make()
            if len(kept) > (N_PLANES_KEPT if kind == "defects" else N_DERIVED_KEPT):
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]

    def _inputs(self, frame: Frame, amps: tuple[Amp, ...], off: Collection[str]) -> IsrInputs:
        config = self.config
        layout = layout_of(amps, height=frame.detector.height, width=frame.detector.width)
        names = layout.names
        ptc = self._calib(frame, "ptc", wanted=True)
        table = ptc.table if ptc else {}
        gain = np.array([_positive(table, amp.name, "gain", amp.gain) for amp in amps])
        read_noise = np.array([_positive(table, amp.name, "read_noise", amp.read_noise) for amp in amps])
        saturation = np.array([amp.saturation for amp in amps])
        turnoff = np.array([_positive(table, name, "turnoff_electron", np.inf) for name in names]) / gain
        suspect = np.where(np.isfinite(turnoff), np.minimum(turnoff, saturation), config.suspect_fraction * saturation)
        applied = frame.applied
        serial = config.serial_overscan and layout.serial is not None
        parallel = config.parallel_overscan and layout.parallel is not None
        crosstalk = self._calib(frame, "crosstalk", wanted=config.crosstalk and config.gain)
        quadratic = self._calib(
            frame, "crosstalk_quadratic", wanted=config.crosstalk and config.quadratic_crosstalk and config.gain
        )
        linearity = self._calib(frame, "linearity", wanted=config.linearity and config.gain)
        bias = self._plane(frame, "bias", wanted=config.bias and config.gain)
        dark_time_s = frame.info.dark_time_s
        if dark_time_s is None:
            dark_time_s = frame.info.exposure_time_s
        dark = self._plane(frame, "dark", wanted=config.dark and config.gain and dark_time_s is not None)
        defects = self._plane(frame, "defects", wanted=config.defects)
        flat = self._plane(frame, "flat", wanted=config.flat)
        steps = {
            "serial_overscan": serial,
            "saturation": True,
            "gain": config.gain,
            "crosstalk": crosstalk is not None,
            "crosstalk_quadratic": quadratic is not None,
            "parallel_overscan": parallel,
            "linearity": linearity is not None,
            "assemble": True,
            "bias": bias is not None,
            "dark": dark is not None,
            "defects": defects is not None,
            "excluded_amps": bool(off),
            "variance": True,
            "flat": flat is not None,
            "interpolate": config.interpolate,
        }
        applied.extend(step for step, is_applied in steps.items() if is_applied)
        unit = gain if config.gain else np.ones_like(gain)
        noise_variance = (read_noise / (gain / unit)) ** 2
        noise_variance += self._amp_variance("bias", bias, layout)
        noise_variance += self._amp_variance("dark", dark, layout) * (dark_time_s or 0.0) ** 2
        curves = (
            self._derive("linearity", linearity.calib_id, lambda: linearity_of(linearity.table, names))
            if linearity
            else None
        )
        return IsrInputs(
            layout=layout,
            gain=unit.astype(np.float32),
            photon_gain=(gain / unit).astype(np.float32),
            noise_variance=noise_variance.astype(np.float32),
            saturation=saturation.astype(np.float32),
            suspect=suspect.astype(np.float32),
            adc_max=config.adc_max,
            serial_overscan=serial,
            parallel_overscan=parallel,
            crosstalk=crosstalk_matrix(crosstalk.table, names) if crosstalk else None,
            quadratic_crosstalk=crosstalk_matrix(quadratic.table, names) if quadratic else None,
            linearity=curves,
            bias=bias.image if bias else None,
            dark=dark.image if dark else None,
            dark_scale=dark_time_s or 0.0,
            flat=flat.image if flat else None,
            defects=self._bad_pixels(frame.detector.name, defects, off, layout),
            interpolate=config.interpolate,
        )

    def _bad_pixels(
        self, detector_name: str, defects: CalibPlane | None, off: Collection[str], layout: AmpLayout
    ) -> NDArray[np.uint8] | None:
        """Return what is masked whatever it holds: known defects, and all of the amps that are off."""
        if defects is None and not off:
            return None

        def make() -> NDArray[np.uint8]:
            bad = np.zeros((layout.height, layout.width), np.uint8)
            table = defects.table if defects is not None else {}
            if defects is not None:
                bad[...] = defects.image != 0
            for name, (x0, y0, _, _) in zip(layout.names, layout.place, strict=True):
                # Of an amp that was off the defects are not known: once on again, it is not all bad for that.
                if name in off or table.get(name, {}).get(EXCLUDED):
                    bad[y0 : y0 + layout.data.height, x0 : x0 + layout.data.width] = name in off
            return bad

        key = (detector_name, defects and defects.calib_id, tuple(sorted(off)))
        found: NDArray[np.uint8] = self._derive("defects", key, make)
        return found

    def _amp_variance(self, kind: str, calib: CalibPlane | None, layout: AmpLayout) -> NDArray[np.float64]:
        """Return each amp's median variance of a calib: it is noise the calib adds to the image."""
        if calib is None or calib.variance is None:
            return np.zeros(len(layout.names))
        variance = calib.variance

        def medians() -> NDArray[np.float64]:
            box = layout.data
            found = np.zeros(len(layout.names))
            for place, (x0, y0, _, _) in enumerate(layout.place):
                values = variance[y0 : y0 + box.height : 16, x0 : x0 + box.width]
                known = values[np.isfinite(values)]
                found[place] = np.median(known) if len(known) else 0.0
            return found

        found: NDArray[np.float64] = self._derive(f"{kind} variance", calib.calib_id, medians)
        return found

    def _measure(self, frame: Frame, inputs: IsrInputs, planes: IsrPlanes, off: Mapping[str, str]) -> None:
        layout = inputs.layout
        unit = frame.unit.lower()
        box = layout.data
        used = inputs.gain * inputs.photon_gain
        reads = {amp.name: scatter_reads(amp) for amp in frame.detector.amps}
        medians, stdevs, noises = [], [], []
        for place, amp_name in enumerate(layout.names):
            x0, y0 = (int(value) for value in layout.place[place, :2])
            found = measure_region(planes.image, planes.mask, (slice(y0, y0 + box.height), slice(x0, x0 + box.width)))
            level = planes.levels[place, box.y0 : box.y1]
            known = level[~np.isnan(level)]
            has_level = inputs.serial_overscan and len(known) > 0
            noise = float(planes.overscan_noise[place] * used[place] / reads[amp_name])
            row: dict[str, Metric] = {
                "gain_electron_per_adu": float(used[place]),
                "overscan_level_adu": float(np.median(known)) if has_level else None,
                "overscan_row_scatter_adu": float(np.std(known, dtype=np.float64)) if has_level else None,
                "overscan_drift_adu": float(known[-100:].mean() - known[:100].mean()) if has_level else None,
                "read_noise_electron": noise if np.isfinite(noise) else None,
                f"parallel_overscan_{unit}": float(np.median(planes.parallel_levels[place]))
                if inputs.parallel_overscan
                else None,
                "n_saturated": int(planes.counts[place, 0]),
                "n_suspect": int(planes.counts[place, 1]),
                "n_bad": int(planes.counts[place, 2]),
                f"image_median_{unit}": found[0] if found else None,
                f"image_mean_{unit}": found[1] if found else None,
                f"image_stdev_{unit}": found[2] if found else None,
            }
            if amp_name in off:
                row = {**dict.fromkeys(row), "excluded": off[amp_name]}
            frame.amps.setdefault(amp_name, {}).update(row)
            if amp_name in off:
                continue
            if found:
                medians.append(found[0])
                stdevs.append(found[2])
            if np.isfinite(noise):
                noises.append(noise)
        on = planes.counts[[name not in off for name in layout.names]].sum(axis=0)
        if off:
            frame.metrics["n_excluded_amps"] = len(layout.names) - int(sum(name not in off for name in layout.names))
        frame.metrics.update(
            {
                f"image_median_{unit}": float(np.median(medians)) if medians else None,
                f"image_stdev_{unit}": float(np.median(stdevs)) if stdevs else None,
                "amp_median_scatter": float(np.std(medians) / abs(np.mean(medians)))
                if medians and abs(np.mean(medians)) > 0
                else None,
                "read_noise_median_electron": float(np.median(noises)) if noises else None,
                "read_noise_max_electron": float(np.max(noises)) if noises else None,
                "n_saturated": int(on[0]),
                "n_suspect": int(on[1]),
                "n_bad": int(on[2]),
                "n_calibs": len(frame.calib_ids),
            }
        )


def _positive(table: Any, amp: str, key: str, default: float) -> float:
    """Return a calib's number for an amp if it is a positive one, the default otherwise."""
    value = table.get(amp, {}).get(key)
    return float(value) if value is not None and np.isfinite(value) and value > 0 else float(default)
