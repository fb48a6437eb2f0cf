"""Numbers of a bias, dark or flat exposure, per amp and detector: the payload ``calib_stats``.

It measures and does not judge: what passes is decided where calibs are verified.
"""

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.mask import NOT_FOR_STATISTICS
from payloads.plugin import Frame, Metric, PayloadConfig
from payloads.quality.calibration_sums import NO_MASK, RegionStatistics, count_above, measure_region
from payloads.quality.residuals import add_residuals
from rapid.exposure.models import ImageType


class CalibrationStatisticsConfig(PayloadConfig):
    """How to measure calibration exposures."""

    clip_sigma: float = Field(default=5.0, gt=1, description="Pixels farther than this from the mean are clipped.")
    n_iterations: int = Field(default=3, ge=1, le=10, description="Rounds of clipping.")
    hot_e_per_s: float = Field(default=5.0, gt=0, description="A pixel of a dark above this is hot [electron/s].")


class CalibrationStatistics:
    """Statistics of a bias, dark or flat.

    Writes per amp ``mean_e``, ``stdev_e``, ``min_e``, ``max_e``, ``standard_error_e``, ``n_used_px`` and by image type

    * bias: ``bias_mean_pull``, mean over its standard error, and ``noise_over_nominal``, scatter over the camera's read
      noise; detector ``bias_mean_e``, ``bias_stdev_e``, ``bias_mean_pull_max``, ``noise_over_nominal_min`` and
      ``noise_over_nominal_max`` (a dead amp is as wrong as a noisy one);
    * dark: ``dark_current_e_per_s``, ``n_hot_px``, on amps and detector (and detector ``hot_px_fraction``);
    * flat: ``flat_level_e``, ``flat_scatter`` (stdev over mean), ``flat_noise_over_expected`` (stdev over that of the
      light and the read noise together; the pixels' unequal response adds to it); detector ``flat_level_e``,
      ``flat_scatter`` and ``flat_noise_over_expected`` (of an amp, median), ``flat_amp_scatter`` (of the amps' means
      about each other, part of their mean).

    For verification it adds what is left once the certified calib of the same kind is taken out
    (`payloads.quality.residuals`).

    What cannot be measured is None. A dark's rate counts cosmic rays among the hot pixels: one exposure cannot tell
    them apart. Whether bias or dark had been subtracted is in ``frame.applied``.
    """

    name: ClassVar[str] = "calib_stats"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = CalibrationStatisticsConfig

    def __init__(self, config: CalibrationStatisticsConfig) -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Measure the frame's image.

        Raises
        ------
        PayloadError
            Raised if no payload has assembled the image yet.
        """
        image = frame.assembled("calib_stats")
        rows: dict[str, dict[str, Metric]] = {}
        for amp in frame.detector.amps:
            gain = 1.0 if frame.unit == "electron" else amp.gain
            box = (amp.trimmed.x0, amp.trimmed.y0, amp.trimmed.x1, amp.trimmed.y1)
            found = measure_region(
                image, frame.mask, box, clip_sigma=self.config.clip_sigma, n_iterations=self.config.n_iterations
            )
            row = rows[amp.name] = _amp_row(found, gain)
            kind = frame.info.image_type
            if kind is ImageType.BIAS:
                error = found.standard_error if found else 0.0
                row["bias_mean_pull"] = found.mean / error if found and error > 0.0 else None
                nominal = amp.read_noise / gain
                row["noise_over_nominal"] = found.stdev / nominal if found and nominal > 0.0 else None
            elif kind is ImageType.DARK:
                row |= self._dark(frame, found, gain, box)
            elif kind is ImageType.FLAT:
                row["flat_level_e"] = row["mean_e"]
                has_light = found is not None and found.mean > 0.0
                row["flat_scatter"] = found.stdev / found.mean if found and has_light else None
                row["flat_noise_over_expected"] = (
                    found.stdev * gain / math.sqrt(found.mean * gain + amp.read_noise**2)
                    if found and has_light
                    else None
                )
        add_residuals(frame, rows, clip_sigma=self.config.clip_sigma, n_iterations=self.config.n_iterations)
        for name, row in rows.items():
            frame.amps.setdefault(name, {}).update(row)
        frame.metrics.update(_detector_metrics(frame.info.image_type, rows, image.size))

    def _dark(
        self, frame: Frame, found: RegionStatistics | None, gain: float, box: tuple[int, int, int, int]
    ) -> dict[str, Metric]:
        # A dark is timed from clear to read-out; the shutter's time is the next best.
        time_s = frame.info.dark_time_s or frame.info.exposure_time_s
        if found is None or frame.image is None or not time_s:
            return {"dark_current_e_per_s": None, "n_hot_px": None}
        planes = NO_MASK if frame.mask is None else frame.mask
        threshold = self.config.hot_e_per_s * time_s / gain + found.mean
        return {
            "dark_current_e_per_s": found.mean * gain / time_s,
            "n_hot_px": int(count_above(frame.image, planes, NOT_FOR_STATISTICS, box, threshold)),
        }


def _amp_row(found: RegionStatistics | None, gain: float) -> dict[str, Metric]:
    keys = ("mean_e", "stdev_e", "min_e", "max_e", "standard_error_e")
    if found is None:
        return {**dict.fromkeys(keys), "n_used_px": 0}
    values = (found.mean, found.stdev, found.minimum, found.maximum, found.standard_error)
    return {**{key: value * gain for key, value in zip(keys, values, strict=True)}, "n_used_px": found.n_used}


def _column(rows: dict[str, dict[str, Metric]], key: str) -> NDArray[np.float64]:
    return np.array([float(v) for row in rows.values() if isinstance(v := row.get(key), int | float)])


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _detector_metrics(kind: ImageType, rows: dict[str, dict[str, Metric]], n_px: int) -> dict[str, Metric]:
    means = _column(rows, "mean_e")
    metrics: dict[str, Metric] = {"mean_e": _median(means), "stdev_e": _median(_column(rows, "stdev_e"))}
    if kind is ImageType.BIAS:
        pulls = np.abs(_column(rows, "bias_mean_pull"))
        ratios = _column(rows, "noise_over_nominal")
        metrics |= {
            "bias_mean_e": metrics["mean_e"],
            "bias_stdev_e": metrics["stdev_e"],
            "bias_mean_pull_max": float(pulls.max()) if len(pulls) else None,
            "noise_over_nominal_min": float(ratios.min()) if len(ratios) else None,
            "noise_over_nominal_max": float(ratios.max()) if len(ratios) else None,
        }
    elif kind is ImageType.DARK:
        hot = _column(rows, "n_hot_px")
        metrics |= {
            "dark_current_e_per_s": _median(_column(rows, "dark_current_e_per_s")),
            "n_hot_px": int(hot.sum()) if len(hot) else None,
            "hot_px_fraction": float(hot.sum() / n_px) if len(hot) else None,
        }
    elif kind is ImageType.FLAT:
        average = float(means.mean()) if len(means) else 0.0
        metrics |= {
            "flat_level_e": metrics["mean_e"],
            "flat_scatter": _median(_column(rows, "flat_scatter")),
            "flat_noise_over_expected": _median(_column(rows, "flat_noise_over_expected")),
            "flat_amp_scatter": float(means.std() / average) if average > 0.0 else None,
        }
    return metrics
