"""Split the numbers of a focal plane into what all amps share, what a detector's share, and each amp's own.

A lamp that fades changes every amp, a cold spot one detector: subtracting what is common tells whose change it is, and
makes one finding of it, not three thousand.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from payloads.trend.kernels import column_medians, group_medians

DEAD_LEVEL = 1e-3
"""Part of its usual level that a number of scale ``ratio`` is at least taken to have: a logarithm needs one."""

_FLOOR = float(np.log(DEAD_LEVEL)) + 1e-6

MIN_DETECTORS = 3
"""Fewer share nothing that could be told from their own."""

MIN_CHANNELS = 5
"""The same for the amps of a detector."""


class Scale(StrEnum):
    """How changes of a number are compared between amps."""

    RATIO = "ratio"
    """As a part of its level: gain, light, noise."""

    DIFFERENCE = "difference"
    """In its own unit: bias level, offsets."""

    COUNT = "count"
    """As the square root of a count, whose scatter does not depend on the count."""


@dataclass(frozen=True)
class Level:
    """Series of one level, relative to their medians, on the scale's own axis."""

    name: str
    values: NDArray[np.float64]
    """Shape (n_rows, n_columns)."""
    base: NDArray[np.float64]
    """Shape (n_columns,): what the values are relative to."""
    owners: NDArray[np.int64]
    """Shape (n_columns,): channel of an amp, place in the list of detectors, or 0 for the camera."""


@dataclass(frozen=True)
class Decomposition:
    """Numbers split by who shares them."""

    detectors: NDArray[np.int64]
    """Numbers of the detectors, shape (n_detectors,)."""
    group: NDArray[np.int64]
    """Place of each channel's detector in that list, shape (n_channels,)."""
    levels: list[Level]


def scaled(values: NDArray[np.floating], scale: Scale) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return numbers on the axis on which changes are compared, relative to each channel's median.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_channels)

    Returns
    -------
    scaled : ndarray of shape (n_rows, n_channels), float64
        NaN for channels whose usual level is not positive, on the scale ``ratio``.
    base : ndarray of shape (n_channels,), float64
        Median of each channel, on the axis of the numbers for ``ratio``, else on that of the scale.
    """
    numbers = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    if scale is Scale.COUNT:
        numbers = 2.0 * np.sqrt(np.maximum(numbers, 0.0) + 0.375)
    base = column_medians(numbers)
    if scale is not Scale.RATIO:
        return numbers - base, base
    # An amp that was dead for most of the window still had a level.
    highest = np.max(np.where(np.isfinite(numbers), numbers, 0.0), axis=0, initial=0.0)
    lit = column_medians(np.where(numbers > 0.1 * highest, numbers, np.nan))
    base = np.where(base > 0.1 * highest, base, lit)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(base > 0.0, np.maximum(numbers / base, DEAD_LEVEL), np.nan)
        return np.log(relative), base


def decompose(
    values: NDArray[np.float64],
    base: NDArray[np.float64],
    channel_detectors: NDArray[np.int64],
    scale: Scale,
) -> Decomposition:
    """Split numbers into levels.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_channels), float64
        From `scaled`.
    channel_detectors : ndarray of shape (n_channels,), int64
        Number of each channel's detector.

    Notes
    -----
    By medians, so that a dead amp does not lean on its neighbours. The camera's level needs three detectors, a
    detector's needs five amps; what has no level above it keeps all of its change.
    """
    detectors, group = np.unique(channel_detectors, return_inverse=True)
    group = group.astype(np.int64)
    n_channels = values.shape[1]
    levels = []
    rest = values
    if len(detectors) >= MIN_DETECTORS:
        common = group_medians(rest, np.zeros(n_channels, np.int64), 1)
        levels.append(Level("camera", common, np.array([np.nanmedian(np.append(base, np.nan))]), np.zeros(1, np.int64)))
        rest = rest - common
    sizes = np.bincount(group, minlength=len(detectors))
    shared = np.flatnonzero(sizes >= MIN_CHANNELS)
    if len(shared):
        of_detector = np.full(len(detectors), -1, np.int64)
        of_detector[shared] = np.arange(len(shared))
        own = group_medians(rest, of_detector[group], len(shared))
        base_of = group_medians(base[None, :], of_detector[group], len(shared))[0]
        levels.append(Level("detector", own, base_of, shared.astype(np.int64)))
        column = of_detector[group]
        share = np.where(column[None, :] >= 0, own[:, np.maximum(column, 0)], 0.0)
        rest = rest - share
    # What is at the floor has no share in anything: a dead amp must not follow the lamp.
    if scale is Scale.RATIO:
        rest = np.where(values <= _FLOOR, values, rest)
    levels.append(Level("amp", rest, base, np.arange(n_channels, dtype=np.int64)))
    return Decomposition(detectors.astype(np.int64), group, levels)
