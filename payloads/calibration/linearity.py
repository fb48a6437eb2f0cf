"""Payload ``build_linearity``: what every amp shows beside what it should, from flats of known exposure times."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.calibration.ptc import TABLE_IMAGE
from payloads.calibration.sequence import calibrated, members_of
from payloads.isr.linearity import correct, linearity_of
from payloads.isr.payload import Isr, IsrConfig
from payloads.isr.statistics import clipped_statistics
from payloads.mask import CR, NOT_FOR_STATISTICS
from payloads.plugin import Frame, PayloadConfig
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType

MIN_LEVELS = 4
MAX_NODES = 24
"""Nodes of a curve: more levels are averaged, so that the spline follows the amp and not the lamp."""
SAME_LEVEL = 0.02
"""Levels that are closer, as a part of them, are one node."""
FAINT = 0.02
"""Part of the brightest level below which a deviation in percent says more of the lamp than of the amp."""


class LinearityConfig(PayloadConfig):
    """Which exposures count, and how they are calibrated."""

    min_levels: int = Field(default=MIN_LEVELS, ge=3, description="Fewest distinct exposure times.")
    max_level_fraction: float = Field(
        default=0.9, gt=0, le=1, description="Part of the saturation level above which nothing is fitted."
    )
    crosstalk: bool = Field(default=True, description="Correct crosstalk if there is a calib.")


@dataclass(frozen=True)
class Curve:
    """One amp's non-linearity.

    Attributes
    ----------
    rate : float
        Light per second [electron/s], as the amp sees faint light.
    levels, corrections : ndarray of shape (n_nodes,), float64, electron
        What to subtract at each level that is seen.
    residual_percent
        Largest deviation once corrected, part of the signal, of exposures that made no node.
    """

    rate: float
    levels: NDArray[np.float64]
    corrections: NDArray[np.float64]
    residual_percent: float | None


def fit_rate(times_s: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the light of each exposure [electron], if the amp were linear: rate times exposure time.

    The rate is that of faint light: the seen rate as a polynomial of the level (a line below six levels, else a parabola),
    at zero. Robust: what is five times the median deviation away is left out once.

    Parameters
    ----------
    times_s, seen : ndarray of shape (n_exposures,), float64
    """
    rate = seen / times_s
    scale = float(seen.max())
    degree = 1 if len(np.unique(np.round(times_s, 6))) < 6 else 2
    # Photon noise of the mean is nothing; the lamp scatters by a part of its level, the bias by some electrons.
    weights = 1.0 / np.hypot(1e-3, 3.0 / seen) / rate
    keep = np.ones(len(seen), dtype=bool)
    coefficients = np.polyfit(seen / scale, rate, degree, w=weights)
    away = np.abs(np.polyval(coefficients, seen / scale) - rate) * weights
    keep = away <= 5.0 * max(float(np.median(away)) * 1.4826, 0.1)
    if np.count_nonzero(keep) > degree + 2:
        coefficients = np.polyfit(seen[keep] / scale, rate[keep], degree, w=weights[keep])
    return np.asarray(times_s * np.polyval(coefficients, 0.0))


def _nodes(seen: NDArray[np.float64], away: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean level and deviation of exposures of nearly one level, ascending."""
    order = np.argsort(seen)
    groups: list[list[int]] = []
    for place in order:
        if groups and seen[place] - seen[groups[-1][0]] < SAME_LEVEL * seen[place]:
            groups[-1].append(int(place))
        else:
            groups.append([int(place)])
    while len(groups) > MAX_NODES:
        nearest = int(np.argmin([seen[b[0]] - seen[a[-1]] for a, b in pairwise(groups)]))
        groups[nearest : nearest + 2] = [groups[nearest] + groups[nearest + 1]]
    levels = np.array([seen[group].mean() for group in groups])
    return levels, np.array([np.median(away[group]) for group in groups])


def fit_curves(times_s: NDArray[np.float64], seen: NDArray[np.float64]) -> list[Curve | None]:
    """Return every amp's curve.

    Parameters
    ----------
    times_s : ndarray of shape (n_exposures,), float64
    seen : ndarray of shape (n_amps, n_exposures), float64, electron
        Mean levels; NaN where an amp has none.

    Returns
    -------
    curves
        None for an amp with too few levels.

    Notes
    -----
    The lamp is common to all amps: by how much an exposure is off the smooth curve in the middle of them is taken out of
    all, so that a flicker makes no bump. What all amps have in common smoothly is theirs, and stays.
    """
    n_amps = len(seen)
    ideal = np.full_like(seen, np.nan)
    for amp in range(n_amps):
        good = np.isfinite(seen[amp]) & (seen[amp] > 0)
        if len(np.unique(np.round(times_s[good], 6))) >= MIN_LEVELS:
            ideal[amp, good] = fit_rate(times_s[good], seen[amp, good])
    flicker = _flicker(times_s, seen, ideal)
    curves: list[Curve | None] = []
    for amp in range(n_amps):
        good = np.isfinite(ideal[amp])
        if not good.any():
            curves.append(None)
            continue
        levels, light = seen[amp, good], ideal[amp, good] * (1.0 + flicker[good])
        rate = float(ideal[amp, good][0] / times_s[good][0])
        nodes, corrections = _nodes(levels, levels - light)
        curves.append(Curve(rate, nodes, corrections, _residual(times_s[good], levels, light)))
    return curves


def _flicker(
    times_s: NDArray[np.float64], seen: NDArray[np.float64], ideal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much each exposure had more light than its time says, as a part of it."""
    relative = np.full_like(seen, np.nan)
    for amp in range(len(seen)):
        good = np.isfinite(ideal[amp])
        if np.count_nonzero(good) < 2 * MIN_LEVELS:
            continue
        off = seen[amp, good] / ideal[amp, good] - 1.0
        smooth = np.polyval(np.polyfit(times_s[good] / times_s.max(), off, 3), times_s[good] / times_s.max())
        relative[amp, good] = off - smooth
    found = np.zeros(seen.shape[1])
    known = np.count_nonzero(np.isfinite(relative), axis=0) >= 2
    if known.any():
        found[known] = np.nanmedian(relative[:, known], axis=0)
    return found


def _residual(times_s: NDArray[np.float64], levels: NDArray[np.float64], light: NDArray[np.float64]) -> float | None:
    """Return the largest deviation [percent] of every second exposure, corrected by the others."""
    order = np.argsort(times_s, kind="stable")
    fitted, tested = order[::2], order[1::2]
    if len(fitted) < MIN_LEVELS or len(tested) < MIN_LEVELS:
        return None
    nodes, corrections = _nodes(levels[fitted], (levels - light)[fitted])
    bright = tested[(levels[tested] > FAINT * levels.max()) & (levels[tested] <= nodes[-1])]
    if not len(bright):
        return None
    curve = linearity_of({"amp": {repr(float(x)): float(y) for x, y in zip(nodes, corrections, strict=True)}}, ("amp",))
    corrected = correct(levels[None, None, bright].astype(np.float32), curve)[0, 0]
    return float(100.0 * np.max(np.abs(corrected / light[bright] - 1.0)))


class BuildLinearity:
    """Builds the curves of all amps, in electrons of the gains in force.

    The calib is a table ``{amp: {level: correction}}``, both in electron, as `payloads.isr.linearity` reads it. Writes per
    amp ``correction_max_percent``, ``residual_max_percent`` and ``rate_electron_per_s``. Exposure times are taken as they
    are in the headers: a shutter that opens late, or a lamp that drifts with time, looks like non-linearity.
    """

    name: ClassVar[str] = "build_linearity"
    version: ClassVar[str] = "1"
    Config = LinearityConfig

    def __init__(self, config: LinearityConfig) -> None:
        self.config = config
        self._isr = Isr(
            IsrConfig(crosstalk=config.crosstalk, linearity=False, flat=False, interpolate=False, cosmic_rays=False)
        )

    def run(self, frame: Frame) -> None:
        """Fit ``frame.inputs``.

        Raises
        ------
        PayloadError
            Raised if there are too few levels, or an exposure does not say how long it was.
        """
        members = members_of(frame, what="a linearity", kinds={ImageType.FLAT}, least=self.config.min_levels)
        times = []
        for member in members:
            if not member.info.exposure_time_s:
                raise PayloadError(
                    f"exposure {member.info.exposure_id} does not say how long it was", exposure=member.info.exposure_id
                )
            times.append(member.info.exposure_time_s)
        if len({member.info.physical_filter for member in members}) > 1:
            raise PayloadError("the flats are of several filters: their lights cannot be compared")
        n_levels = len(set(np.round(times, 6)))
        if n_levels < self.config.min_levels:
            raise PayloadError(f"{n_levels} exposure times; {self.config.min_levels} are needed", n_levels=n_levels)
        columns = [self._levels(part) for part in calibrated(frame, self._isr, members)]
        names = [amp.name for amp in frame.detector.amps]
        seen = np.array([[column.get(name, np.nan) for column in columns] for name in names])
        curves = fit_curves(np.array(times), seen)
        frame.image, frame.variance, frame.mask, frame.unit = TABLE_IMAGE, None, None, "electron"
        frame.applied.append("fit_linearity")
        frame.amps, frame.calib_table = {}, {}
        for name, curve in zip(names, curves, strict=True):
            if curve is None:
                frame.amps[name] = {
                    "correction_max_percent": None, "residual_max_percent": None, "rate_electron_per_s": None
                }  # fmt: skip
                continue
            bright = curve.levels > FAINT * curve.levels.max()
            frame.amps[name] = {
                "correction_max_percent": float(100 * np.max(np.abs(curve.corrections / curve.levels)[bright])),
                "residual_max_percent": curve.residual_percent,
                "rate_electron_per_s": curve.rate,
            }
            frame.calib_table[name] = {
                f"{level:.7g}": float(value) for level, value in zip(curve.levels, curve.corrections, strict=True)
            }
        frame.metrics.update({"n_inputs": len(members), "n_levels": n_levels, "n_amps_fitted": len(frame.calib_table)})
        frame.tables["ramp"] = {
            "exposure": [member.info.exposure_id for member in members],
            "exposure_time_s": times,
            **{f"level_{name}_electron": list(map(float, row)) for name, row in zip(names, seen, strict=True)},
        }

    def _levels(self, part: Frame) -> dict[str, float]:
        """Return the mean level of every amp that is not saturated [electron]."""
        found: dict[str, float] = {}
        if part.image is None or part.mask is None:
            return found
        for amp in part.detector.amps:
            gain = part.amps[amp.name].get("gain_electron_per_adu")
            values = part.image[amp.trimmed.slices]
            good = (part.mask[amp.trimmed.slices] & (NOT_FOR_STATISTICS | CR)) == 0
            if not isinstance(gain, int | float) or np.count_nonzero(good) < good.size // 2:
                continue
            level = clipped_statistics(values[good])
            if level is not None and 0 < level[1] <= self.config.max_level_fraction * amp.saturation * gain:
                found[amp.name] = level[1]
        return found
