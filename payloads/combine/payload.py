"""Payloads ``build_bias``, ``build_dark`` and ``build_flat``: combine one detector's exposures into a calib.

Each input is calibrated by `payloads.isr` with the steps that belong to its kind, pixels without a value are left
out, and the rest is combined by `payloads.combine.stack`. After cp_pipe, for one detector: a flat is normalised by
its own detector's level only, so it says nothing of one detector's throughput relative to another's (the levels
are in the metrics, from which a focal-plane step can tell); cosmic rays are left to the clipping; charge-transfer
inefficiency and the brighter-fatter effect are not corrected.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.combine.pairs import measure_pair_gains
from payloads.combine.stack import ImageStack
from payloads.isr.assemble import bin_image
from payloads.isr.inputs import AmpLayout, layout_of
from payloads.isr.payload import Isr, IsrConfig
from payloads.isr.statistics import clipped_statistics, measure_region
from payloads.isr.steps import WITHOUT_VALUE
from payloads.mask import BAD, NO_DATA
from payloads.plugin import EXCLUDED, Frame, PayloadConfig
from rapid.errors import PayloadError


class BuildConfig(PayloadConfig):
    """How many exposures a calib needs, and what is applied to each."""

    min_inputs: int = Field(default=2, ge=1, description="Fewest exposures that make a calib.")
    crosstalk: bool = Field(default=True, description="Correct crosstalk if there is a calib.")
    linearity: bool = Field(default=True, description="Correct non-linearity if there is a calib.")
    parallel_overscan: bool = Field(default=True, description="Subtract each column's overscan level.")


@dataclass
class _Facts:
    """What is learned of the inputs on the way."""

    exposures: list[int] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    noise: list[NDArray[np.float64]] = field(default_factory=list)
    amp_levels: list[NDArray[np.float64]] = field(default_factory=list)
    defects: NDArray[np.bool_] | None = None
    """Pixels that are known to be bad, in every input so far."""
    excluded: dict[str, str] | None = None
    """Amps that are switched off in every input so far, with the reason."""

    def note_missing(self, part: Frame, mask: NDArray[np.int32]) -> None:
        """Note what an input has no value of because it is known to be bad: nobody expects one there."""
        bad = (mask & BAD) != 0
        self.defects = bad if self.defects is None else self.defects & bad
        off = {amp: str(row[EXCLUDED]) for amp, row in part.amps.items() if row.get(EXCLUDED)}
        self.excluded = off if self.excluded is None else {a: why for a, why in self.excluded.items() if a in off}


class _Build:
    """What the builds have in common."""

    version: ClassVar[str] = "1"
    kind: ClassVar[str]
    unit: ClassVar[str]
    empty: ClassVar[float]
    """Value of a pixel that no exposure measured: the one that changes nothing when the calib is applied."""
    Config = BuildConfig

    def __init__(self, config: BuildConfig) -> None:
        self.config = config
        self._isr = Isr(
            IsrConfig(
                parallel_overscan=config.parallel_overscan,
                crosstalk=config.crosstalk,
                linearity=config.linearity,
                bias=self.kind in {"dark", "flat"},
                dark=self.kind == "flat",
                defects=self.kind in {"dark", "flat"},
                flat=False,
                interpolate=False,
                cosmic_rays=False,  # the clipping finds them, and keeps the hot pixels
            )
        )

    @abstractmethod
    def _scale_of(self, frame: Frame, level: float) -> float:
        """Return what an exposure's image [electron] is divided by."""

    def run(self, frame: Frame) -> None:
        """Combine ``frame.inputs`` into the frame's image, variance and metrics.

        Raises
        ------
        PayloadError
            Raised if there are too few inputs, or they do not belong together.
        RawError
            Raised if an input cannot be read.
        """
        if len(frame.inputs) < self.config.min_inputs:
            raise PayloadError(
                f"{len(frame.inputs)} exposures to build a {self.kind} from; {self.config.min_inputs} are needed",
                n_inputs=len(frame.inputs),
            )
        facts = _Facts()
        stack: ImageStack | None = None
        layout: AmpLayout | None = None
        try:
            for load in frame.inputs:
                part = load()
                self._check(frame, part)
                self._isr.run(part)
                if part.image is None or part.mask is None:
                    raise PayloadError(f"exposure {part.info.exposure_id} has no image to combine")
                if stack is None or layout is None:
                    stack = ImageStack((part.detector.height, part.detector.width))
                    layout = layout_of(part.detector.amps, height=part.detector.height, width=part.detector.width)
                    frame.detector = part.detector
                    frame.applied = list(part.applied)
                    frame.calib_ids = dict(part.calib_ids)
                elif not is_calibrated_alike(part, frame):
                    raise PayloadError(
                        f"exposure {part.info.exposure_id} would be calibrated unlike the others "
                        f"({part.calib_ids}, not {frame.calib_ids})",
                        exposure=part.info.exposure_id,
                    )
                self._add(stack, part, layout, facts)
            if stack is None or layout is None:
                raise PayloadError(f"no exposures to build a {self.kind} from")
            self._combine(frame, stack, layout, facts)
        finally:
            if stack is not None:
                stack.__exit__(None, None, None)

    def _check(self, frame: Frame, part: Frame) -> None:
        if part.info.is_guider:
            raise PayloadError(f"exposure {part.info.exposure_id} is a guider file", exposure=part.info.exposure_id)
        if (part.info.camera, part.info.detector) != (frame.info.camera, frame.info.detector):
            raise PayloadError(
                f"exposure {part.info.exposure_id} is of {part.info.camera} {part.info.detector_name}, "
                f"not {frame.info.camera} {frame.info.detector_name}",
                exposure=part.info.exposure_id,
            )

    def _add(self, stack: ImageStack, part: Frame, layout: AmpLayout, facts: _Facts) -> None:
        image, mask = part.image, part.mask
        if image is None or mask is None:
            return
        if image.shape != stack.shape:
            raise PayloadError(f"exposure {part.info.exposure_id} is of another size", exposure=part.info.exposure_id)
        facts.note_missing(part, mask)
        useful = (mask & WITHOUT_VALUE) == 0
        found = clipped_statistics(image[::16][useful[::16]])
        if found is None:
            raise PayloadError(f"exposure {part.info.exposure_id} has no useful pixel", exposure=part.info.exposure_id)
        scale = self._scale_of(part, found[1])
        amps = [part.amps[name] for name in layout.names]
        # The measured noise; what the camera says, where the overscan gave none.
        nominal = {amp.name: amp.read_noise for amp in part.detector.amps}
        noise = np.array(
            [_number(amp["read_noise_electron"]) or nominal[name] for name, amp in zip(layout.names, amps, strict=True)]
        )
        levels = np.array([_number(amp["image_mean_electron"]) or 0.0 for amp in amps])
        facts.exposures.append(part.info.exposure_id)
        facts.levels.append(found[1])
        facts.scales.append(scale)
        facts.noise.append(np.sqrt(noise**2 + np.maximum(levels, 0.0)) / scale)
        facts.amp_levels.append(levels)
        image[~useful] = np.nan
        image /= np.float32(scale)
        stack.append(image)

    def _combine(self, frame: Frame, stack: ImageStack, layout: AmpLayout, facts: _Facts) -> None:
        noise = np.sqrt(np.mean(np.square(facts.noise), axis=0))
        mean, variance, counts = stack.combine(layout, noise)
        norm = self._normalise(mean, variance)
        missing = counts == 0
        off = facts.excluded or {}
        frame.excluded_amps = off
        unexpected = missing & ~facts.defects if facts.defects is not None else missing
        mean[missing] = self.empty
        variance[missing] = 0.0
        frame.image, frame.variance = mean, variance
        frame.mask = np.where(missing, NO_DATA, 0).astype(np.int32)
        frame.counts = counts
        frame.unit = self.unit
        frame.binned = bin_image(mean, 8)
        frame.applied.append("combine")
        unit = self.unit.replace("/", "_per_") or "ratio"
        box = layout.data
        scatters = []
        for place, name in enumerate(layout.names):
            x0, y0 = (int(value) for value in layout.place[place, :2])
            region = (slice(y0, y0 + box.height), slice(x0, x0 + box.width))
            if name in off:
                frame.amps[name] = {EXCLUDED: off[name]}
                continue
            found = measure_region(mean, frame.mask, region)
            rows = (slice(region[0].start, region[0].stop, 16), region[1])
            kept = counts[rows] > 1
            # What one exposure scatters about the others: the variance of the mean, times their number.
            scatter = float(np.sqrt(np.mean((variance[rows] * counts[rows])[kept]))) if kept.any() else None
            scatters.append(scatter)
            frame.amps.setdefault(name, {}).update(
                {
                    f"calib_median_{unit}": found[0] if found else None,
                    f"calib_mean_{unit}": found[1] if found else None,
                    f"calib_stdev_{unit}": found[2] if found else None,
                    f"input_scatter_{unit}": scatter,
                    f"expected_scatter_{unit}": float(noise[place]) / norm,
                    "n_pixels_without_input": int(np.count_nonzero(unexpected[region])),
                }
            )
        whole = measure_region(mean, frame.mask, (slice(0, layout.height), slice(0, layout.width)))
        known = [scatter for scatter in scatters if scatter is not None]
        frame.metrics.update(
            {
                "n_inputs": stack.n_images,
                f"calib_mean_{unit}": whole[1] if whole else None,
                f"calib_stdev_{unit}": whole[2] if whole else None,
                f"input_scatter_{unit}": float(np.median(known)) if known else None,
                "input_level_mean_electron": float(np.mean(facts.levels)),
                "input_level_scatter_electron": float(np.std(facts.levels)),
                "n_pixels_without_input": int(np.count_nonzero(unexpected)),
                "n_clipped_fraction": _part_clipped(counts[::16], stack.n_images, facts.defects),
            }
        )
        if off:
            frame.metrics["n_excluded_amps"] = len(off)
        frame.tables["inputs"] = {
            "exposure": list(facts.exposures),
            "level_electron": list(facts.levels),
            "scale": list(facts.scales),
        }
        self._measure_more(frame, stack, layout, facts)

    def _normalise(self, mean: NDArray[np.float32], variance: NDArray[np.float32]) -> float:
        """Scale the combined plane in place if its kind has a norm; return what it was divided by."""
        del mean, variance
        return 1.0

    def _measure_more(self, frame: Frame, stack: ImageStack, layout: AmpLayout, facts: _Facts) -> None:
        """Add what only this kind can tell."""


class BuildBias(_Build):
    """Payload ``build_bias``: combined bias [electron] from zero-second exposures."""

    name: ClassVar[str] = "build_bias"
    kind = "bias"
    unit = "electron"
    empty = 0.0

    def _scale_of(self, frame: Frame, level: float) -> float:  # noqa: ARG002 - a bias is not scaled
        return 1.0


class BuildDark(_Build):
    """Payload ``build_dark``: combined dark [electron/s] from bias-subtracted exposures with the shutter closed."""

    name: ClassVar[str] = "build_dark"
    kind = "dark"
    unit = "electron/s"
    empty = 0.0

    def _scale_of(self, frame: Frame, level: float) -> float:  # noqa: ARG002 - a dark is scaled by time
        time_s = frame.info.dark_time_s or frame.info.exposure_time_s
        if not time_s:
            raise PayloadError(f"exposure {frame.info.exposure_id} has no dark time", exposure=frame.info.exposure_id)
        return time_s


class BuildFlat(_Build):
    """Payload ``build_flat``: combined flat (mean 1) from bias- and dark-subtracted exposures of one filter."""

    name: ClassVar[str] = "build_flat"
    kind = "flat"
    unit = ""
    empty = 1.0

    def _check(self, frame: Frame, part: Frame) -> None:
        super()._check(frame, part)
        if part.info.physical_filter != frame.info.physical_filter:
            raise PayloadError(
                f"exposure {part.info.exposure_id} is in filter {part.info.physical_filter}, "
                f"not {frame.info.physical_filter}",
                exposure=part.info.exposure_id,
            )

    def _scale_of(self, frame: Frame, level: float) -> float:
        if level <= 0:
            raise PayloadError(
                f"exposure {frame.info.exposure_id} has no light (level {level:.1f} electron)",
                exposure=frame.info.exposure_id,
            )
        return level

    def _normalise(self, mean: NDArray[np.float32], variance: NDArray[np.float32]) -> float:
        sample = mean[::16]
        found = clipped_statistics(sample[np.isfinite(sample)])
        norm = found[1] if found and found[1] > 0 else 1.0
        mean /= np.float32(norm)
        variance /= np.float32(norm * norm)
        # A pixel without response would blow up what is divided by it: such are for the defects calib to name.
        dark = ~(mean > 0)
        mean[dark] = self.empty
        return norm

    def _measure_more(self, frame: Frame, stack: ImageStack, layout: AmpLayout, facts: _Facts) -> None:
        gains = measure_pair_gains(stack, layout, np.array(facts.scales), np.array(facts.noise))
        used = {amp.name: amp.gain for amp in frame.detector.amps}
        for place, name in enumerate(layout.names):
            if name in (facts.excluded or {}):
                continue
            ratio = gains[place]
            frame.amps[name]["gain_pair_ratio"] = float(ratio) if np.isfinite(ratio) else None
            frame.amps[name]["gain_pair_electron_per_adu"] = (
                float(ratio * used[name]) if np.isfinite(ratio) and "ptc" not in frame.calib_ids else None
            )


def is_calibrated_alike(one: Frame, other: Frame) -> bool:
    """Whether two exposures had the same corrections, with the same calibs. An amp may be switched off in one of them."""
    steps = [[step for step in frame.applied if step != "excluded_amps"] for frame in (one, other)]
    return steps[0] == steps[1] and one.calib_ids == other.calib_ids


def _part_clipped(counts: NDArray[np.int32], n_images: int, defects: NDArray[np.bool_] | None) -> float:
    """Return the part of the inputs' pixels, of every 16th row, that was left out, pixels known to be bad not counted."""
    good = counts if defects is None else counts[~defects[::16]]
    return float(1.0 - good.mean() / n_images) if good.size else 0.0


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
