"""What is true of a simulated camera: the numbers that a pipeline has to find.

Everything follows from the night's seed and the detector: no state, no files needed to repeat it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapid.camera.models import Camera, Detector

CROSSTALK_NEIGHBOUR = 3.0e-4
"""Largest coefficient, between amps read out side by side; falls with their distance in read-out order."""

NONLINEARITY = 1.0e-8
"""Counts lost per electron squared: 0.1 % at 1e5 electrons."""

PIXEL_RESPONSE_SCATTER = 0.005
FIXED_PATTERN_E = 1.0
"""Per-pixel structure of the bias [electron rms]."""


@dataclass(frozen=True)
class AmpTruth:
    """Electronics of one amp."""

    gain: float
    read_noise: float
    bias_level_adu: float
    bias_slope_adu: float
    """Rise of the bias over the columns [ADU]: the overscan does not see it, a bias calib does."""
    row_slope_adu: float
    """Rise of the level over the rows [ADU]: the serial overscan sees it."""
    saturation_e: float


@dataclass(frozen=True)
class DetectorTruth:
    """One simulated CCD."""

    amps: tuple[AmpTruth, ...]
    dark_current_e_s: float
    hot_x: NDArray[np.int64]
    hot_y: NDArray[np.int64]
    hot_rate_e_s: NDArray[np.float32]
    bad_columns: NDArray[np.int64]
    crosstalk: NDArray[np.float32]
    """Coefficient ``[target, source]``; the diagonal is zero."""
    pattern_seed: int

    def to_dict(self, detector: Detector) -> dict[str, Any]:
        """Return the truth as JSON facts."""
        return {
            "detector": detector.id,
            "name": detector.name,
            "amps": {
                amp.name: {
                    "gain": truth.gain,
                    "read_noise": truth.read_noise,
                    "bias_level_adu": truth.bias_level_adu,
                    "saturation_e": truth.saturation_e,
                }
                for amp, truth in zip(detector.amps, self.amps, strict=True)
            },
            "dark_current_e_s": self.dark_current_e_s,
            "hot_pixels": [
                [int(x), int(y), float(r)] for x, y, r in zip(self.hot_x, self.hot_y, self.hot_rate_e_s, strict=True)
            ],
            "bad_columns": [int(column) for column in self.bad_columns],
            "crosstalk": self.crosstalk.tolist(),
            "pixel_response_scatter": PIXEL_RESPONSE_SCATTER,
            "nonlinearity": NONLINEARITY,
        }


def rng_of(*parts: int) -> np.random.Generator:
    """Return the random generator that belongs to a thing, the same in every run."""
    return np.random.default_rng(np.random.SeedSequence([part & 0xFFFFFFFFFFFF for part in parts]))


def detector_truth(detector: Detector, seed: int) -> DetectorTruth:
    """Return the truth of one CCD of a simulated camera."""
    rng = rng_of(seed, detector.id, 1)
    n = len(detector.amps)
    amps = tuple(
        AmpTruth(
            gain=float(amp.gain * rng.normal(1.0, 0.01)),
            read_noise=float(amp.read_noise * rng.normal(1.0, 0.03)),
            bias_level_adu=float(rng.uniform(22_000, 28_000)),
            bias_slope_adu=float(rng.normal(0, 1.5)),
            row_slope_adu=float(rng.normal(0, 3.0)),
            saturation_e=float(amp.saturation * amp.gain),
        )
        for amp in detector.amps
    )
    area = detector.width * detector.height
    n_hot = max(int(area * 2e-5), 3)
    hot_x = rng.integers(0, detector.width, n_hot)
    hot_y = rng.integers(0, detector.height, n_hot)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    with np.errstate(divide="ignore"):
        crosstalk = np.where(distance > 0, CROSSTALK_NEIGHBOUR / np.maximum(distance, 1) ** 2, 0.0)
    crosstalk *= rng.uniform(0.5, 1.0, crosstalk.shape)
    return DetectorTruth(
        amps=amps,
        dark_current_e_s=float(rng.uniform(0.02, 0.08)),
        hot_x=hot_x,
        hot_y=hot_y,
        hot_rate_e_s=rng.uniform(5, 60, n_hot).astype(np.float32),
        bad_columns=rng.choice(detector.width, size=max(detector.width // 1000, 1), replace=False).astype(np.int64),
        crosstalk=crosstalk.astype(np.float32),
        pattern_seed=int(rng.integers(1 << 31)),
    )


def vignetting(camera: Camera) -> tuple[float, float]:
    """Return ``a, b`` of the illumination ``1 - a r^2 - b r^4`` with r in mm from the optical axis.

    Falls by 2 % at half and 8 % at the full radius of the field, then steeply: the shape of a wide-field
    telescope's vignetting, not its exact curve.
    """
    radius = max(float(np.hypot(d.x_mm, d.y_mm)) for d in camera.detectors) + 30.0
    return 0.05 / radius**2, 0.03 / radius**4
