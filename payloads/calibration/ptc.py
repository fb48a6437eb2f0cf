"""Payload ``build_ptc``: gain, read noise, a00 and turn-off of every amp from pairs of flats at many levels."""

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from payloads.calibration.photon_transfer import PairPoint, PhotonTransfer, fit_photon_transfer, measure_pair
from payloads.calibration.sequence import Member, calibrated, members_of, pairs_of
from payloads.isr.overscan_noise import levelled_variance
from payloads.isr.payload import Isr, IsrConfig
from payloads.mask import CR, NOT_FOR_STATISTICS
from payloads.plugin import Frame, Metric, PayloadConfig
from rapid.camera.models import Amp
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType

TABLE_IMAGE = np.zeros((1, 1), dtype=np.float32)
"""Image of a calib that is a table."""


class PtcConfig(PayloadConfig):
    """How the pairs are calibrated and measured."""

    min_pairs: int = Field(default=4, ge=3, description="Fewest pairs of flats.")
    n_lags: int = Field(default=3, ge=2, le=10, description="Rows and columns apart of covariances, 0 counted.")
    edge_px: int = Field(default=8, ge=0, le=200, description="Pixels left out along the edges of every amp.")
    crosstalk: bool = Field(default=True, description="Correct crosstalk if there is a calib.")
    linearity: bool = Field(default=True, description="Correct non-linearity if there is a calib.")


class BuildPtc:
    """Fits the photon transfer of every amp, in counts: whatever gains were applied are taken out again.

    Writes per amp ``gain``, ``gain_error`` [electron/ADU], ``read_noise`` (overscan) and ``fit_noise_electron``,
    ``a00_per_electron`` with error, ``a10_per_electron``, ``a01_per_electron``, ``turnoff_electron`` (only if a pair was
    brighter), ``brightest_electron``, ``chi2_per_dof``, ``n_pairs``. What could not be fitted is absent from the calib:
    the camera's nominal number is then used.
    """

    name: ClassVar[str] = "build_ptc"
    version: ClassVar[str] = "1"
    Config = PtcConfig

    def __init__(self, config: PtcConfig) -> None:
        self.config = config
        self._isr = Isr(
            IsrConfig(
                crosstalk=config.crosstalk,
                linearity=config.linearity,
                flat=False,
                interpolate=False,
                cosmic_rays=False,  # the difference is clipped
            )
        )

    def run(self, frame: Frame) -> None:
        """Fit ``frame.inputs``.

        Raises
        ------
        PayloadError
            Raised if there are too few pairs, or the exposures are no flats of this detector.
        """
        config = self.config
        members = members_of(frame, what="gains", kinds={ImageType.FLAT}, least=2 * config.min_pairs)
        pairs = pairs_of(members)
        if len(pairs) < config.min_pairs:
            raise PayloadError(
                f"{len(pairs)} pairs of flats of equal exposure time; {config.min_pairs} are needed", n_pairs=len(pairs)
            )
        points: dict[str, list[PairPoint]] = {}
        noises: dict[str, list[float]] = {}
        n_used = 0
        for pair in pairs:
            n_used += self._add_pair(frame, pair, points, noises)
        frame.image, frame.variance, frame.mask, frame.unit = TABLE_IMAGE, None, None, "electron/ADU"
        frame.applied.append("photon_transfer")
        frame.amps, frame.calib_table = {}, {}
        rows: dict[str, list[float | str | bool]] = {
            name: []
            for name in ("amp", "mean_adu", "variance_adu2", "covariance_10_adu2", "covariance_01_adu2", "used")
        }
        for amp in frame.detector.amps:
            self._fit_amp(frame, amp, points.get(amp.name, []), noises.get(amp.name, []), rows)
        frame.tables["photon_transfer"] = dict(rows)
        gains = [row["gain"] for row in frame.calib_table.values() if "gain" in row]
        frame.metrics.update(
            {
                "n_pairs": n_used,
                "n_inputs": len(members),
                "n_amps_fitted": len(gains),
                "gain_median_electron_per_adu": float(np.median(gains)) if gains else None,
            }
        )

    def _add_pair(
        self,
        frame: Frame,
        pair: tuple[Member, Member],
        points: dict[str, list[PairPoint]],
        noises: dict[str, list[float]],
    ) -> bool:
        """Measure one pair; whether any amp has it."""
        first, second = calibrated(frame, self._isr, list(pair))
        if first.image is None or second.image is None or first.mask is None or second.mask is None:
            return False
        edge, found = self.config.edge_px, False
        for amp in frame.detector.amps:
            gains = [_number(part.amps[amp.name].get("gain_electron_per_adu")) for part in (first, second)]
            if gains[0] is None or gains[1] is None:
                continue  # the amp is switched off
            box = amp.trimmed
            inner_x, inner_y = min(edge, box.width // 8), min(edge, box.height // 8)
            region = (slice(box.y0 + inner_y, box.y1 - inner_y), slice(box.x0 + inner_x, box.x1 - inner_x))
            bad = (first.mask[region] | second.mask[region]) & (NOT_FOR_STATISTICS | CR)
            point = measure_pair(
                first.image[region] / np.float32(gains[0]),
                second.image[region] / np.float32(gains[1]),
                bad == 0,
                n_lags=self.config.n_lags,
            )
            if point is None:
                continue
            found = True
            points.setdefault(amp.name, []).append(point)
            for part, gain in zip((first, second), gains, strict=True):
                noise = _number(part.amps[amp.name].get("read_noise_electron"))
                if noise is not None and gain:
                    noises.setdefault(amp.name, []).append(noise / gain)
        return found

    def _fit_amp(
        self,
        frame: Frame,
        amp: Amp,
        points: list[PairPoint],
        noises: list[float],
        rows: dict[str, list[float | str | bool]],
    ) -> None:
        noise_adu = float(np.median(noises)) if noises else None
        # Pairs have the noise of their overscan levels besides; what is told is without.
        levelled = math.sqrt(levelled_variance(amp))
        fit = fit_photon_transfer(
            points, read_noise_adu=noise_adu * levelled if noise_adu is not None else None, gain_guess=amp.gain
        )
        used = fit.used if fit else np.zeros(len(points), dtype=bool)
        for point, is_used in zip(points, used, strict=True):
            values: tuple[float | str | bool, ...] = (
                amp.name,
                point.mean_adu,
                point.variance_adu2,
                float(point.covariance_adu2[0, 1]),
                float(point.covariance_adu2[1, 0]),
                bool(is_used),
            )
            for column, value in zip(rows, values, strict=True):
                rows[column].append(value)
        numbers = _numbers_of(fit, noise_adu, levelled)
        frame.amps[amp.name] = {**dict.fromkeys(_NAMES), **numbers, "n_pairs": int(used.sum())}
        if fit is not None and frame.calib_table is not None:
            frame.calib_table[amp.name] = {**numbers, "n_pairs": float(used.sum())}


_NAMES: tuple[str, ...] = (
    "gain", "gain_error", "read_noise", "fit_noise_electron", "a00_per_electron", "a00_error_per_electron",
    "a10_per_electron", "a01_per_electron", "turnoff_electron", "brightest_electron", "chi2_per_dof",
)  # fmt: skip


def _numbers_of(fit: PhotonTransfer | None, noise_adu: float | None, levelled: float) -> dict[str, float]:
    if fit is None:
        return {}
    fit_noise_electron = fit.noise_electron / levelled
    numbers = {
        "gain": fit.gain,
        "gain_error": fit.gain_error,
        "read_noise": noise_adu * fit.gain if noise_adu is not None else fit_noise_electron,
        "fit_noise_electron": fit_noise_electron,
        "a00_per_electron": fit.a00,
        "a00_error_per_electron": fit.a00_error,
        "a10_per_electron": fit.a10,
        "a01_per_electron": fit.a01,
        "turnoff_electron": fit.turnoff_electron,
        "brightest_electron": fit.brightest_electron,
        "chi2_per_dof": fit.chi2_per_dof,
    }
    return {name: value for name, value in numbers.items() if value is not None and np.isfinite(value)}


def _number(value: Metric) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
