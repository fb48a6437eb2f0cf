"""Photon transfer: light's own noise tells gain, read noise and how strongly charge repels charge.

Pure functions of arrays; `payloads.calibration.ptc` feeds them.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from payloads.isr.statistics import clipped_statistics

N_SIGMA = 5.0
MIN_PIXELS = 1000
MAX_LEVEL_DIFFERENCE = 0.05
"""Two flats whose levels differ by more do not make a pair."""

LARGEST_DROP = 0.03
"""Part of the variance by which it falls beyond the turn-off: charge spills over, and pixels become alike."""

MIN_POINTS = 3
MODEL_ERROR = 1e-3
"""Of a variance: what no model of three parameters describes."""


@dataclass(frozen=True)
class PairPoint:
    """One pair of flats in one amp.

    Attributes
    ----------
    mean_adu, variance_adu2
        Level, and variance of one exposure's pixels.
    covariance_adu2 : ndarray of shape (n_lags, n_lags), float64
        ``[rows apart, columns apart]``, of one exposure; the first is the variance.
    """

    mean_adu: float
    variance_adu2: float
    n_pixels: int
    covariance_adu2: NDArray[np.float64]


@njit(nogil=True, cache=True)
def _covariances(difference, good, n_lags):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the mean product of good pixels some rows and columns apart, both ways of the columns."""
    height, width = difference.shape
    found = np.zeros((n_lags, n_lags))
    for j in range(n_lags):
        for i in range(n_lags):
            total = 0.0
            n = 0
            for y in range(height - j):
                for x in range(width - i):
                    if good[y, x] and good[y + j, x + i]:
                        total += difference[y, x] * difference[y + j, x + i]
                        n += 1
                    if i > 0 and j > 0 and good[y, x + i] and good[y + j, x]:
                        total += difference[y, x + i] * difference[y + j, x]
                        n += 1
            found[j, i] = total / max(n, 1)
    return found


def measure_pair(
    first: NDArray[np.float32], second: NDArray[np.float32], good: NDArray[np.bool_], *, n_lags: int = 3
) -> PairPoint | None:
    """Return level, variance and covariances of two flats of the same light.

    Parameters
    ----------
    first, second : ndarray of shape (height, width), float32, ADU
        One amp. Not modified.
    good : ndarray of the same shape, bool
        Pixels to use.
    n_lags
        Rows and columns apart, the pixel itself counted.

    Returns
    -------
    point
        None if too few pixels are good, or the levels differ by more than 5 %.

    Notes
    -----
    After lsst.cp.pipe: the difference, each exposure scaled to the mean level of both, so that a lamp's drift is no
    noise; half its variance, clipped at five sigma. What illumination and pixels have of structure cancels.
    """
    if np.count_nonzero(good) < MIN_PIXELS:
        return None
    levels = [clipped_statistics(plane[good]) for plane in (first, second)]
    if levels[0] is None or levels[1] is None:
        return None
    one, two = levels[0][1], levels[1][1]
    mean = 0.5 * (one + two)
    if mean <= 0 or abs(one - two) > MAX_LEVEL_DIFFERENCE * mean:
        return None
    difference = (np.float64(two) * first - np.float64(one) * second) / mean
    used = good.copy()
    centre, spread = 0.0, float("inf")
    found = clipped_statistics(difference[good].astype(np.float32))
    if found is None:
        return None
    centre, spread = found[1], found[2]
    for _ in range(3):
        used = good & (np.abs(difference - centre) <= N_SIGMA * spread)
        if np.count_nonzero(used) < MIN_PIXELS:
            return None
        values = difference[used]
        centre, spread = float(values.mean()), float(values.std(ddof=1))
        if spread <= 0:
            break  # a dead amp has no noise at all: that is a point, and the fit says what it thinks of it
    difference -= centre
    covariance = 0.5 * _covariances(difference, used, n_lags)
    return PairPoint(mean, 0.5 * spread**2, int(np.count_nonzero(used)), covariance)


@dataclass(frozen=True)
class PhotonTransfer:
    """What the pairs of one amp tell.

    Attributes
    ----------
    gain
        electron/ADU.
    a00, a10, a01
        Change of a pixel's area by its own charge, by that of its neighbour in the row, in the column [1/electron].
    noise_electron
        From the fit, with whatever does not depend on light.
    turnoff_electron
        Level up to which variance follows the light; None if no pair was brighter than that.
    brightest_electron
        Level of the brightest pair that was used.
    used : ndarray of shape (n_points,), bool
        Points in the fit, in the order they were given.
    """

    gain: float
    gain_error: float
    a00: float
    a00_error: float
    a10: float
    a01: float
    noise_electron: float
    turnoff_electron: float | None
    brightest_electron: float
    chi2_per_dof: float
    used: NDArray[np.bool_]


def variance_of(mean_adu: NDArray[np.float64], gain: float, a00: float, noise_adu2: float) -> NDArray[np.float64]:
    """Return the variance of a level [ADU squared].

    Notes
    -----
    Source: equation 16 of Astier et al. 2019 (A&A 629, A36): ``(exp(2 a00 mu g) - 1) / (2 g^2 a00) + n / g^2``; for
    a00 = 0 that is ``mu / g``.
    """
    reach = 2.0 * a00 * mean_adu * gain
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(np.abs(reach) > 1e-9, np.expm1(reach) / reach, 1.0)
    return np.asarray(mean_adu / gain * factor + noise_adu2)


def _below_turnoff(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> tuple[NDArray[np.bool_], bool]:
    """Return the points before the variance first falls for good, and whether it does."""
    order = np.argsort(mean)
    keep = np.ones(len(mean), dtype=bool)
    highest = -np.inf
    for rank, place in enumerate(order):
        rest = variance[order[rank:]]
        # One low pair is an outlier of the fit; all that follow is the turn-off.
        if highest > 0 and (rest < (1.0 - LARGEST_DROP) * highest).all():
            keep[order[rank:]] = False
            return keep, True
        highest = max(highest, float(variance[place]))
    return keep, False


def fit_photon_transfer(
    points: list[PairPoint], *, read_noise_adu: float | None = None, gain_guess: float = 1.0
) -> PhotonTransfer | None:
    """Fit one amp's pairs.

    Parameters
    ----------
    points
        In any order.
    read_noise_adu
        Measured in the overscan: what the variance is without light. None leaves it to the fit alone.
    gain_guess
        Where to begin [electron/ADU].

    Returns
    -------
    fit
        None if fewer than three pairs are left, or the fit does not come to an end.
    """
    from scipy.optimize import least_squares

    mean = np.array([point.mean_adu for point in points])
    variance = np.array([point.variance_adu2 for point in points])
    pixels = np.array([point.n_pixels for point in points], dtype=np.float64)
    if len(points) < MIN_POINTS:
        return None
    keep, has_turned = _below_turnoff(mean, variance)
    noise_guess = read_noise_adu**2 if read_noise_adu else 25.0
    a00_scale = 1e-6

    def residuals(parameters: NDArray[np.float64], use: NDArray[np.bool_]) -> NDArray[np.float64]:
        gain, a00, noise = np.exp(parameters[0]), parameters[1] * a00_scale, parameters[2] * noise_guess
        expected = variance_of(mean[use], gain, a00, noise)
        # The error of what is expected: one of what was found would favour pairs that are low by chance.
        error = np.abs(expected) * np.sqrt(2.0 / pixels[use] + MODEL_ERROR**2) + 1e-12
        found = (variance[use] - expected) / error
        if read_noise_adu:
            # Overscan pixels are neither all of the read noise nor exact.
            found = np.append(found, (noise - noise_guess) / (0.05 * noise_guess))
        return np.asarray(found)

    start = np.array([np.log(gain_guess), 0.0, 1.0])
    fit = None
    for _ in range(4):
        if np.count_nonzero(keep) < MIN_POINTS:
            return None
        fit = least_squares(residuals, start, args=(keep,), x_scale=(0.01, 1.0, 0.1), max_nfev=200)
        if not fit.success or not np.isfinite(fit.x).all():
            return None
        away = np.zeros(len(mean))
        away[:] = np.abs(residuals(fit.x, np.ones(len(mean), dtype=bool))[: len(mean)])
        better = keep & (away <= max(N_SIGMA, 5.0 * 1.4826 * float(np.median(away[keep]))))
        if (better == keep).all():
            break
        keep = better
    if fit is None or np.count_nonzero(keep) < MIN_POINTS:
        return None
    gain, a00 = float(np.exp(fit.x[0])), float(fit.x[1] * a00_scale)
    n_data = np.count_nonzero(keep) + (1 if read_noise_adu else 0)
    chi2 = float(np.sum(np.square(fit.fun))) / float(max(int(n_data) - 3, 1))
    try:
        jacobian = np.asarray(fit.jac, dtype=np.float64)
        covariance = np.linalg.inv(jacobian.T @ jacobian)
    except np.linalg.LinAlgError:
        return None
    # To second order C_ij = a_ij mu^2 (1 + 4/3 a00 mu g): what has moved once is moved again.
    lever = mean[keep] ** 2 * (1.0 + 4.0 / 3.0 * a00 * mean[keep] * gain)
    weights = pixels[keep] / np.maximum(variance[keep], 1e-9) ** 2
    neighbours = [
        float(np.sum(weights * lever * [p.covariance_adu2[j, i] for p, k in zip(points, keep, strict=True) if k]))
        / float(np.sum(weights * lever**2))
        for j, i in ((0, 1), (1, 0))
    ]
    brightest = float(mean[keep].max()) * gain
    scale = max(1.0, chi2) ** 0.5
    return PhotonTransfer(
        gain=gain,
        gain_error=gain * float(np.sqrt(covariance[0, 0])) * scale,
        a00=a00,
        a00_error=float(np.sqrt(covariance[1, 1])) * a00_scale * scale,
        a10=neighbours[0],
        a01=neighbours[1],
        noise_electron=float(np.sqrt(max(fit.x[2] * noise_guess, 0.0))) * gain,
        turnoff_electron=brightest if has_turned else None,
        brightest_electron=brightest,
        chi2_per_dof=chi2,
        used=keep,
    )
