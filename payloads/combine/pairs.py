"""Measure gains from pairs of flats: light's own noise tells how many electrons there were."""

import numpy as np
from numpy.typing import NDArray

from payloads.combine.stack import ImageStack
from payloads.isr.inputs import AmpLayout
from payloads.isr.statistics import clipped_statistics

ROW_STEP = 8
MAX_LEVEL_DIFFERENCE = 0.05
"""Two flats whose levels differ by more do not make a pair."""


def measure_pair_gains(
    stack: ImageStack, layout: AmpLayout, scales: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much each amp's gain differs from the one that was applied.

    For Poisson light the variance of a difference is the sum of the levels, if the gain is right; it is
    too large by r where the true gain is r times smaller. Read noise is taken off.

    Parameters
    ----------
    stack
        Flats divided by their ``scales`` [electron].
    scales : ndarray of shape (n_images,)
    noise : ndarray of shape (n_images, n_amps)
        Expected deviation of a scaled pixel: light and read noise together.

    Returns
    -------
    ratios : ndarray of shape (n_amps,)
        True gain over the one applied, median over pairs; NaN without a pair.

    Notes
    -----
    The brighter-fatter effect correlates neighbours and lowers the variance: some percent high near full well.
    """
    n_amps = len(layout.names)
    ratios: list[NDArray[np.float64]] = []
    box = layout.data
    for first in range(0, stack.n_images - 1, 2):
        one, two = scales[first], scales[first + 1]
        if abs(one - two) > MAX_LEVEL_DIFFERENCE * max(one, two):
            continue
        pair = stack.read_pair(first, ROW_STEP)
        found = np.full(n_amps, np.nan)
        for amp, (x0, y0, _, _) in enumerate(layout.place):
            low, high = -(-int(y0) // ROW_STEP), -(-(int(y0) + box.height) // ROW_STEP)
            a, b = (plane[low:high, int(x0) : int(x0) + box.width] for plane in pair)
            good = np.isfinite(a) & np.isfinite(b)
            level = clipped_statistics(0.5 * (a[good] + b[good]))
            # Scales are taken out of the difference, so that a lamp's drift is not noise.
            difference = clipped_statistics(a[good] - b[good])
            if level is None or difference is None or level[1] <= 0:
                continue
            mean_level = level[1]
            # expected: light of both over their scales, and read noise of both
            light = mean_level * (1.0 / one + 1.0 / two)
            read = max(0.0, noise[first, amp] ** 2 + noise[first + 1, amp] ** 2 - light)
            measured = difference[2] ** 2 - read
            if measured > 0:
                found[amp] = light / measured
        ratios.append(found)
    if not ratios:
        return np.full(n_amps, np.nan)
    stacked = np.array(ratios)
    result = np.full(n_amps, np.nan)
    known = np.isfinite(stacked).any(axis=0)
    result[known] = np.nanmedian(stacked[:, known], axis=0)
    return result
