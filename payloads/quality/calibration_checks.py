"""Numbers of a bias, dark or flat exposure, per amp and detector: the payload ``calib_stats``.

It measures and does not judge: what passes is decided where calibs are verified.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from payloads.mask import NOT_FOR_STATISTICS
from payloads.plugin import Frame, Metric, PayloadConfig
from payloads.quality.sky import NO_MASK
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType

MIN_PIXELS = 100
"""Fewer good pixels than this make no statistics."""


class CalibrationStatisticsConfig(PayloadConfig):
    """How to measure calibration exposures."""

    clip_sigma: float = Field(default=5.0, gt=1, description="Pixels farther than this from the mean are clipped.")
    n_iterations: int = Field(default=3, ge=1, le=10, description="Rounds of clipping.")
    hot_e_per_s: float = Field(default=5.0, gt=0, description="A pixel of a dark above this is hot [electron/s].")


@dataclass(frozen=True)
class RegionStatistics:
    """Clipped statistics of one region, in the unit of the image; see `measure_region`."""

    mean: float
    stdev: float
    minimum: float
    maximum: float
    n_used: int
    n_good: int

    @property
    def standard_error(self) -> float:
        """Of the mean, were all pixels independent."""
        return self.stdev / math.sqrt(self.n_used)


@njit(cache=True, nogil=True)
def _sums(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject_bits: int,
    box: tuple[int, int, int, int],
    low: float,
    high: float,
    centre: float,
) -> tuple[int, float, float, float, float]:
    """Return count, sum, sum of squares (both about ``centre``), minimum and maximum of good pixels in a range."""
    x0, y0, x1, y1 = box
    has_mask = mask.shape[0] > 0
    n = 0
    total = 0.0
    squares = 0.0
    minimum = np.inf
    maximum = -np.inf
    for y in range(y0, y1):
        # Per row in single precision would lose the fourth digit of a flat's variance.
        for x in range(x0, x1):
            value = float(image[y, x])
            if not (value >= low and value <= high):
                continue
            if has_mask and (mask[y, x] & reject_bits) != 0:
                continue
            away = value - centre
            n += 1
            total += away
            squares += away * away
            minimum = min(minimum, value)
            maximum = max(maximum, value)
    return n, total, squares, minimum, maximum


@njit(cache=True, nogil=True)
def count_above(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    reject_bits: int,
    box: tuple[int, int, int, int],
    threshold: float,
) -> int:
    """Count the good pixels of a box ``(x0, y0, x1, y1)`` above a threshold."""
    x0, y0, x1, y1 = box
    has_mask = mask.shape[0] > 0
    n = 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            if image[y, x] > threshold and not (has_mask and (mask[y, x] & reject_bits) != 0):
                n += 1
    return n


def measure_region(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    box: tuple[int, int, int, int],
    *,
    clip_sigma: float = 5.0,
    n_iterations: int = 3,
) -> RegionStatistics | None:
    """Measure the clipped mean and scatter of a box of pixels.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
    mask : ndarray of the same shape, int32, or None
        Pixels BAD, SAT, NO_DATA or UNMASKEDNAN are left out; so are those not finite.
    box
        ``(x0, y0, x1, y1)``, the last two one past the end [px].

    Returns
    -------
    statistics
        Minimum and maximum before clipping; None with fewer than 100 good pixels.

    Notes
    -----
    Starts from median and MAD of every 64th pixel, so that one hot column cannot widen the first clip.
    """
    planes = NO_MASK if mask is None else mask
    x0, y0, x1, y1 = box
    big = float(np.finfo(np.float32).max)
    n_good, _, _, minimum, maximum = _sums(image, planes, NOT_FOR_STATISTICS, box, -big, big, 0.0)
    if n_good < MIN_PIXELS:
        return None
    sample = image[y0:y1:8, x0:x1:8]
    if mask is not None:
        sample = sample[(mask[y0:y1:8, x0:x1:8] & NOT_FOR_STATISTICS) == 0]
    sample = sample[np.isfinite(sample)]
    centre = float(np.median(sample)) if sample.size else 0.5 * (minimum + maximum)
    spread = 1.4826 * float(np.median(np.abs(sample - centre))) if sample.size else 0.0
    if spread == 0.0:
        # More than half of the pixels are alike (an ADU image of a quiet amp): the median says nothing of the scatter.
        spread = float(sample.std(dtype=np.float64)) if sample.size else maximum - minimum
    mean, stdev, n_used = centre, spread, n_good
    for _ in range(n_iterations):
        reach = clip_sigma * stdev
        n, total, squares, _, _ = _sums(image, planes, NOT_FOR_STATISTICS, box, mean - reach, mean + reach, mean)
        if n < 2:
            break
        shift = total / n
        variance = max((squares - n * shift * shift) / (n - 1), 0.0)
        settled = n == n_used and abs(shift) < 1e-12
        mean, stdev, n_used = mean + shift, math.sqrt(variance), n
        if settled:
            break
    return RegionStatistics(mean, stdev, minimum, maximum, n_used, n_good)


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
        if frame.image is None:
            raise PayloadError("calib_stats needs an assembled image: put isr or assemble before it in the pipeline")
        rows: dict[str, dict[str, Metric]] = {}
        for amp in frame.detector.amps:
            gain = 1.0 if frame.unit == "electron" else amp.gain
            box = (amp.trimmed.x0, amp.trimmed.y0, amp.trimmed.x1, amp.trimmed.y1)
            found = measure_region(
                frame.image, frame.mask, box, clip_sigma=self.config.clip_sigma, n_iterations=self.config.n_iterations
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
            frame.amps.setdefault(amp.name, {}).update(row)
        frame.metrics.update(_detector_metrics(frame.info.image_type, rows, frame.image.size))

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
