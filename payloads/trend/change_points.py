"""Find the steps and drifts of one series, and date them."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

MIN_BEFORE = 8
"""Numbers before a change: fewer make no level to have left."""

MIN_HISTORY = 30
"""Numbers without which no drift is told from the slow wander that every series has."""

MIN_AFTER = 3
"""Numbers after a step: one may be a bad exposure, and two a bad pair."""

MIN_AFTER_LARGE = 2
LARGE_SIGMA = 25.0
"""A step of this many standard deviations need not wait for the third number."""

CONTEXT = 7
UNSETTLED_SIGMA = 6.0
"""The last numbers are held against the median of as many before them; this far away they are off."""

MIN_DRIFT = 8
"""Numbers that a drift must last."""

PREFER_STEP = 6.0
"""By how much a drift must explain more (in chi squared) to be told from a step."""

MAX_CHANGES = 4
"""In one series and window; one with more has no level to speak of."""


class Shape(StrEnum):
    """What a change looks like."""

    STEP = "step"
    DRIFT = "drift"


@dataclass(frozen=True)
class Change:
    """A change of one series; times are days, sizes in the unit of the series."""

    shape: Shape
    onset: float
    """First day of the new level; day on which a drift began."""
    onset_error: float
    """Half of the range of days that explain the numbers nearly as well (one standard deviation)."""
    size: float
    """After minus before; of a drift, up to the last number."""
    size_error: float
    before: float
    """Level that was left."""
    significance: float
    """Size over its error."""
    slope: float | None = None
    """Per day, of a drift."""


def _candidates(times: NDArray[np.float64], shape: Shape, onsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a column for every onset, shape (n_times, n_onsets)."""
    away = times[:, None] - onsets[None, :]
    return np.where(away >= 0.0, 1.0, 0.0) if shape is Shape.STEP else np.maximum(away, 0.0)


def _gains(y: NDArray[np.float64], design: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much each column would lower the sum of squares that a design leaves."""
    basis, _ = np.linalg.qr(design)
    residual = y - basis @ (basis.T @ y)
    own = columns - basis @ (basis.T @ columns)
    length = np.einsum("ij,ij->j", own, own)
    along = own.T @ residual
    # What the design spans already explains nothing new.
    new = length > 1e-9 * np.einsum("ij,ij->j", columns, columns) + 1e-12
    return np.where(new, along * along / np.where(new, length, 1.0), 0.0)


def _onsets(n: int, shape: Shape, taken: list[int], *, is_large: bool) -> NDArray[np.int64]:
    """Return the indices at which a change may begin."""
    if shape is Shape.DRIFT:
        last = n - MIN_DRIFT
        return np.arange(0, last) if n >= MIN_HISTORY else np.empty(0, np.int64)
    after = MIN_AFTER_LARGE if is_large else MIN_AFTER
    indices = np.arange(MIN_BEFORE, n - after + 1)
    free = [i for i in indices if all(abs(i - other) >= MIN_AFTER for other in taken)]
    return np.array(free, np.int64)


@dataclass
class _Model:
    """Changes being fitted together: shapes and indices of their onsets."""

    times: NDArray[np.float64]
    y: NDArray[np.float64]
    parts: list[tuple[Shape, int]]

    def design(self, without: int | None = None) -> NDArray[np.float64]:
        columns = [np.ones((len(self.times), 1))]
        for place, (shape, index) in enumerate(self.parts):
            if place != without:
                columns.append(_candidates(self.times, shape, self.times[index : index + 1]))
        return np.hstack(columns)

    def best(self, shape: Shape, without: int | None = None, *, is_large: bool = False) -> tuple[float, int]:
        """Return the largest gain of one more change, and its index; 0 and -1 if there is none."""
        taken = [i for place, (kind, i) in enumerate(self.parts) if kind is Shape.STEP and place != without]
        indices = _onsets(len(self.times), shape, taken, is_large=is_large)
        if not len(indices):
            return 0.0, -1
        gains = _gains(self.y, self.design(without), _candidates(self.times, shape, self.times[indices]))
        top = int(np.argmax(gains))
        return float(gains[top]), int(indices[top])

    def refine(self) -> None:
        """Move each onset to where it explains most, the others held."""
        if len(self.parts) < 2:
            return
        for place, (shape, index) in enumerate(self.parts):
            gain, better = self.best(shape, place)
            if better >= 0 and gain > 0.0 and better != index:
                self.parts[place] = (shape, better)


def find_changes(
    times: NDArray[np.float64], values: NDArray[np.float64], *, noise: float, threshold: float, min_size: float
) -> list[Change]:
    """Find the changes of a series.

    Parameters
    ----------
    times : ndarray of shape (n,), float64
        Days, growing.
    values : ndarray of shape (n,), float64
        NaN where there is none.
    noise
        Standard deviation of one number; of slow wander too, if the series has any.
    threshold
        A change must be this many times its error.
    min_size
        And at least this large: smaller ones do not matter to anybody.

    Returns
    -------
    changes
        In the order of their onsets.

    Notes
    -----
    Least squares with one more step or broken line at a time, all onsets tried, kept while the best one explains more
    than the threshold; then each is moved to where it explains most beside the others. Lone bad numbers are to be taken
    out before (`payloads.trend.kernels.clean_columns`).
    """
    good = np.isfinite(values) & ~_unsettled(values, noise)
    x, y = times[good], values[good]
    if len(x) < MIN_BEFORE + MIN_AFTER_LARGE or not noise > 0.0:
        return []
    model = _Model(x, y, [])
    limit = (threshold * noise) ** 2
    while len(model.parts) < MAX_CHANGES:
        step, at = model.best(Shape.STEP)
        large, large_at = model.best(Shape.STEP, is_large=True)
        if large > max(step, (LARGE_SIGMA * noise) ** 2):
            step, at = large, large_at
        drift, drift_at = model.best(Shape.DRIFT)
        best = (step, Shape.STEP, at)
        if drift > step + PREFER_STEP * noise**2:
            best = (drift, Shape.DRIFT, drift_at)
        if best[0] < limit:
            break
        model.parts.append((best[1], best[2]))
        model.refine()
    return _measured(model, noise, threshold, min_size)


def _unsettled(values: NDArray[np.float64], noise: float) -> NDArray[np.bool_]:
    """Return which of the last numbers are off, and too few to tell a new level from a bad day.

    Left in, one of them would be explained as the end of a drift, or of a step with its two good neighbours.
    """
    off = np.zeros(len(values), bool)
    last = np.flatnonzero(np.isfinite(values))
    if len(last) < MIN_BEFORE + MIN_AFTER:
        return off
    newest, before = last[-MIN_AFTER:], last[-MIN_AFTER - CONTEXT : -MIN_AFTER]
    away = values[newest] - np.median(values[before])
    if np.all(np.abs(away) > UNSETTLED_SIGMA * noise) and (np.all(away > 0.0) or np.all(away < 0.0)):
        return off
    two = away[-MIN_AFTER_LARGE:]
    if np.all(np.abs(two) > LARGE_SIGMA * noise) and (np.all(two > 0.0) or np.all(two < 0.0)):
        off[newest[:-MIN_AFTER_LARGE]] = np.abs(away[:-MIN_AFTER_LARGE]) > UNSETTLED_SIGMA * noise
        return off
    off[newest] = np.abs(away) > UNSETTLED_SIGMA * noise
    return off


def _measured(model: _Model, noise: float, threshold: float, min_size: float) -> list[Change]:
    """Fit all together, and keep what is significant and large enough beside the others."""
    while model.parts:
        design = model.design()
        found, *_ = np.linalg.lstsq(design, model.y, rcond=None)
        covariance = np.linalg.pinv(design.T @ design) * noise**2
        errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        changes = []
        weakest, worst = np.inf, -1
        for place, (shape, index) in enumerate(model.parts):
            value, error = float(found[place + 1]), float(errors[place + 1])
            significance = abs(value) / error if error > 0.0 else 0.0
            length = float(model.times[-1] - model.times[index]) if shape is Shape.DRIFT else 1.0
            changes.append(
                Change(
                    shape=shape,
                    onset=float(model.times[index]),
                    onset_error=_onset_error(model, place, noise),
                    size=value * length,
                    size_error=error * length,
                    before=0.0,
                    significance=significance,
                    slope=value if shape is Shape.DRIFT else None,
                )
            )
            if (significance < threshold or abs(changes[-1].size) < min_size) and significance < weakest:
                weakest, worst = significance, place
        if worst < 0:
            return _with_levels(changes, float(found[0]))
        del model.parts[worst]
    return []


def _with_levels(changes: list[Change], level: float) -> list[Change]:
    out: list[Change] = []
    for change in sorted(changes, key=lambda one: one.onset):
        before = level
        for earlier in out:
            before += earlier.size if earlier.slope is None else earlier.slope * max(change.onset - earlier.onset, 0.0)
        out.append(replace(change, before=before))
    return out


def _onset_error(model: _Model, place: int, noise: float) -> float:
    shape, index = model.parts[place]
    n = len(model.times)
    first, last = (MIN_BEFORE, n - MIN_AFTER_LARGE) if shape is Shape.STEP else (0, n - MIN_DRIFT)
    indices = np.arange(min(first, index), max(last, index) + 1)
    gains = _gains(model.y, model.design(place), _candidates(model.times, shape, model.times[indices]))
    near = model.times[indices[gains >= gains[np.searchsorted(indices, index)] - noise**2]]
    return max(0.5 * float(near.max() - near.min()), 0.5)


def model_of(changes: list[Change], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the changes add to a series at the given times, shape (n,)."""
    out = np.zeros(len(times))
    for change in changes:
        away = times - change.onset
        out += np.where(away >= 0.0, change.size, 0.0) if change.slope is None else change.slope * np.maximum(away, 0.0)
    return out


def date_growth(times: NDArray[np.float64], counts: NDArray[np.float64], change: Change) -> Change:
    """Return a count's growth dated on the counts themselves.

    A steady growth is bent on the axis of their square roots, which draws its begin forward by days.
    """
    good = np.isfinite(counts)
    model = _Model(times[good], counts[good], [])
    gain, index = model.best(Shape.DRIFT)
    return change if index < 0 or gain <= 0.0 else replace(change, onset=float(model.times[index]))
