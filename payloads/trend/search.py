"""Search one number of a whole focal plane for changes: what changed, whose it is, when, and by how much."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from payloads.trend.change_points import MIN_AFTER_LARGE, MIN_BEFORE, Change, Shape, date_growth, find_changes, model_of
from payloads.trend.decompose import Decomposition, Level, Scale, decompose, scaled
from payloads.trend.kernels import clean_columns, column_medians, scan_columns

MIN_TO_KNOW = 30
"""Numbers from which the scatter within a day is known; before, five biases of a first afternoon alarm for their rounding."""

CONTEXT_DAYS = 15
"""Days before and after, that one day's number is held against."""

MIN_WITHIN_DAY = 5
"""Exposures of a day that are held against each other; fewer are taken together."""

POOLED_FLOOR = 0.3
"""No series is taken to be quieter than this part of its kind's usual noise: an amp whose numbers hardly move by chance
would raise alarms for nothing."""

SETTLED = 60
"""Numbers after which a series' own scatter is known well enough to go below that of its kind."""

UNKNOWN_WANDER = 1.5
"""Wander of series too short to show theirs."""

OWN_WANDER = 0.8
"""Weight of a series' own wander beside that of its kind: it is known from few blocks only."""

DEAD_BELOW = float(np.log(0.1))
"""On the scale ``ratio``: less than a tenth is left."""

SAME_TIME_DAYS = 2.0
"""Changes this close are taken for one, if enough amps have them."""


class Kind(StrEnum):
    """What happened."""

    STEP = "step"
    DRIFT = "drift"
    GROWTH = "growth"
    """A count that goes on growing."""

    DEAD = "dead"
    """Less than a tenth of its level is left."""

    OUTLIER = "outlier"
    """One bad exposure, or day."""

    MISSING = "missing"
    """Not measurable any more, though the detector's other amps are."""


@dataclass(frozen=True)
class SearchConfig:
    """What counts as a change."""

    step_sigma: float = 9.0
    drift_sigma: float = 9.0
    outlier_sigma: float = 10.0
    min_change: float = 0.0
    """On the scale's own axis: a part of the level for ``ratio``."""
    min_noise: float = 0.5
    """Changes smaller than this many times the scatter of one day do not matter to anybody."""


@dataclass(frozen=True)
class Finding:
    """A change, and whose it is."""

    scope: str
    """camera, raft, detector or amp; a raft is told from its detectors by whoever knows the camera."""
    kind: Kind
    detector: int | None
    channel: int | None
    onset: float
    """Day, as in ``days``."""
    onset_error: float
    size: float
    """On the scale's own axis."""
    size_error: float
    before: float
    """Level before, on the scale's own axis and absolute (not relative to the median), but for ``ratio``: 0."""
    significance: float
    base: float
    slope: float | None = None
    row: int | None = None
    """Of an outlier: which exposure."""
    n_channels: int = 1
    detectors: tuple[int, ...] = ()
    """Of one that several detectors share."""


@dataclass(frozen=True)
class Numbers:
    """One metric of a camera's channels over some time.

    Parameters
    ----------
    values : ndarray of shape (n_exposures, n_channels), float
        In the order they were taken; NaN where not measured.
    days : ndarray of shape (n_exposures,), int64
        Day of each, counted from anywhere; never falling.
    detectors : ndarray of shape (n_channels,), int64
    """

    values: NDArray[np.floating]
    days: NDArray[np.int64]
    detectors: NDArray[np.int64]


def daily(values: NDArray[np.float64], days: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the median of each day, shape (n_days, n_channels), and the days."""
    unique, first = np.unique(days, return_index=True)
    if len(unique) == len(days):
        return values, unique
    out = np.empty((len(unique), values.shape[1]))
    ends = [*first[1:], len(days)]
    for place, (begin, end) in enumerate(zip(first, ends, strict=True)):
        out[place] = values[begin] if end - begin == 1 else column_medians(values[begin:end])
    return out, unique


def search(numbers: Numbers, scale: Scale, config: SearchConfig, *, from_day: int | None = None) -> list[Finding]:
    """Search for changes.

    Parameters
    ----------
    from_day
        Bad exposures are looked for from here on; steps and drifts in all days. All days if left out.

    Returns
    -------
    findings
        One for what many amps share, the most significant first.
    """
    if not len(numbers.days) or not numbers.values.shape[1]:
        return []
    values, base = scaled(numbers.values, scale)
    by_day, days = daily(values, numbers.days)
    begin = int(days[0]) if from_day is None else from_day
    parts = decompose(by_day, base, numbers.detectors, scale)
    findings: list[Finding] = []
    for level in parts.levels:
        findings += _LevelSearch(level, parts, days, scale, config).run(begin)
    findings += _missing(numbers, days, parts, begin)
    findings += _within_days(numbers, values, base, scale, config, begin)
    merged = _merge(findings, parts)
    return sorted(merged, key=lambda one: -one.significance)


@dataclass
class _LevelSearch:
    level: Level
    parts: Decomposition
    days: NDArray[np.int64]
    scale: Scale
    config: SearchConfig

    def run(self, begin: int) -> list[Finding]:
        cleaned, sigma, wander = clean_columns(np.ascontiguousarray(self.level.values))
        noise, loud = self._noise(sigma, wander)
        times = self.days.astype(np.float64)
        step, slope = scan_columns(cleaned, times, MIN_BEFORE, MIN_AFTER_LARGE)
        threshold = min(self.config.step_sigma, self.config.drift_sigma)
        with np.errstate(invalid="ignore"):
            hit = np.flatnonzero(np.maximum(step, slope) > threshold * noise)
        findings: list[Finding] = []
        explained: dict[int, list[Change]] = {}
        for column in hit:
            changes = find_changes(
                times,
                cleaned[:, column],
                noise=float(noise[column]),
                threshold=threshold,
                min_size=max(self.config.min_change, self.config.min_noise * float(sigma[column])),
            )
            if self.scale is Scale.COUNT and len(changes) == 1 and changes[0].slope is not None:
                root = cleaned[:, column] + self.level.base[column]
                changes = [date_growth(times, 0.25 * root**2, changes[0])]
            explained[int(column)] = changes
            findings += [self._finding(int(column), change) for change in changes]
        return findings + self._bad_days(begin, loud, explained)

    def _noise(
        self, sigma: NDArray[np.float64], wander: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the noise of each series with and without its wander; infinite where it is not known."""
        known = sigma[np.isfinite(sigma) & (sigma > 0.0)]
        usual = float(np.median(known)) if len(known) else 0.0
        n = len(self.level.values)
        share = 1.0 if n < SETTLED else POOLED_FLOOR
        floor = max(share * usual, 0.3 if self.scale is Scale.COUNT else 0.0)
        # Numbers that never move have no noise of their own; a rounding error must not be a change.
        smallest = 1e-9 * np.maximum(np.abs(self.level.base), 1.0) if self.scale is not Scale.RATIO else 1e-9
        sigma = np.where(np.isfinite(sigma), np.maximum(np.maximum(sigma, floor), smallest), np.inf)
        pool = wander[np.isfinite(wander)]
        known_wander = float(np.median(pool)) if len(pool) >= 8 else 1.0
        shared = max(known_wander, UNKNOWN_WANDER) if n < SETTLED else known_wander
        factor = np.fmax(np.fmax(1.0, shared), OWN_WANDER * wander)
        return sigma * factor, sigma

    def _finding(self, column: int, change: Change) -> Finding:
        kind = Kind.STEP if change.shape is Shape.STEP else Kind.DRIFT
        if self.scale is Scale.RATIO and change.shape is Shape.STEP and change.before + change.size < DEAD_BELOW:
            kind = Kind.DEAD
        elif self.scale is Scale.COUNT and kind is Kind.DRIFT and change.size > 0.0:
            kind = Kind.GROWTH
        return self._owned(
            column,
            kind,
            onset=change.onset,
            onset_error=change.onset_error,
            size=change.size,
            size_error=change.size_error,
            before=change.before,
            significance=change.significance,
            slope=change.slope,
        )

    def _owned(self, column: int, kind: Kind, **facts: float | None) -> Finding:
        owner, name = int(self.level.owners[column]), self.level.name
        detector: int | None = None
        if name == "detector":
            detector = int(self.parts.detectors[owner])
        elif name == "amp":
            detector = int(self.parts.detectors[self.parts.group[owner]])
        base = float(self.level.base[column])
        finding = Finding(
            scope=name,
            kind=kind,
            detector=detector,
            channel=owner if name == "amp" else None,
            base=base,
            **facts,  # type: ignore[arg-type]  # the caller names the numbers of a Finding
        )
        return replace(finding, before=finding.before + (0.0 if self.scale is Scale.RATIO else base))

    def _bad_days(self, begin: int, sigma: NDArray[np.float64], explained: dict[int, list[Change]]) -> list[Finding]:
        """Return days whose number is far from those around it."""
        rest = self.level.values
        if explained:
            rest = rest.copy()
            for column, changes in explained.items():
                rest[:, column] -= model_of(changes, self.days.astype(np.float64))
        findings = []
        for row in np.flatnonzero(self.days >= begin):
            low, high = max(row - CONTEXT_DAYS, 0), min(row + CONTEXT_DAYS + 1, len(self.days))
            around = np.concatenate([rest[low:row], rest[row + 1 : high]])
            enough = np.isfinite(around).sum(axis=0) >= MIN_BEFORE
            with np.errstate(invalid="ignore"):
                away = rest[row] - column_medians(np.ascontiguousarray(around))
                size = np.abs(away)
                limit = max(self.config.min_change, 0.0)
                bad = enough & (size > self.config.outlier_sigma * sigma) & (size > limit)
            findings += [
                self._owned(
                    int(column),
                    Kind.OUTLIER,
                    onset=float(self.days[row]),
                    onset_error=0.5,
                    size=float(away[column]),
                    size_error=float(sigma[column]),
                    before=float(rest[row, column] - away[column]),
                    significance=float(size[column] / sigma[column]),
                )
                for column in np.flatnonzero(bad)
            ]
        return findings


def _within_days(
    numbers: Numbers,
    values: NDArray[np.float64],
    base: NDArray[np.float64],
    scale: Scale,
    config: SearchConfig,
    begin: int,
) -> list[Finding]:
    """Return bad exposures among the others of their day, where there are enough of them."""
    unique, first, count = np.unique(numbers.days, return_index=True, return_counts=True)
    many = np.flatnonzero(count >= MIN_WITHIN_DAY)
    if not len(many) or int(unique[many[-1]]) < begin:
        return []
    # Against the median of the day; its scatter from all such days of the window together.
    rows = np.concatenate([np.arange(first[k], first[k] + count[k]) for k in many])
    away = np.concatenate(
        [
            values[first[k] : first[k] + count[k]]
            - column_medians(np.ascontiguousarray(values[first[k] : first[k] + count[k]]))
            for k in many
        ]
    )
    if len(rows) < MIN_TO_KNOW:
        return []
    parts = decompose(away, base, numbers.detectors, Scale.DIFFERENCE)
    findings: list[Finding] = []
    days = numbers.days[rows]
    for level in parts.levels:
        spread = _spread_within_days(level.values, int(count[many].min()))
        searcher = _LevelSearch(level, parts, days, scale, config)
        _, sigma = searcher._noise(spread, np.full(len(spread), np.nan))
        with np.errstate(invalid="ignore"):
            size = np.abs(level.values)
            bad = (size > config.outlier_sigma * sigma) & (size > config.min_change) & (days >= begin)[:, None]
        for row, column in zip(*np.nonzero(bad), strict=True):
            finding = searcher._owned(
                int(column),
                Kind.OUTLIER,
                onset=float(days[row]),
                onset_error=0.5,
                size=float(level.values[row, column]),
                size_error=float(sigma[column]),
                before=0.0,
                significance=float(size[row, column] / sigma[column]),
            )
            findings.append(replace(finding, row=int(rows[row])))
    return findings


def _spread_within_days(away: NDArray[np.float64], n_in_day: int) -> NDArray[np.float64]:
    """Return the scatter of each series about the median of its day.

    Parameters
    ----------
    away : ndarray of shape (n_exposures, n_series), float64
    n_in_day
        Exposures of the shortest day: one of so few is the median itself, and the scatter about it too small.

    Notes
    -----
    Where most numbers are alike to the last bit (a count that is nearly always the same), the median of the deviations is
    none: their root mean square is taken, and a rare other value stands out only once it is as rare as one in a hundred.
    """
    size = np.abs(away)
    spread = 1.4826 * (1.0 + 1.0 / n_in_day) * column_medians(np.ascontiguousarray(size))
    known = np.isfinite(size)
    rms = np.sqrt(np.where(known, size**2, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    return np.where(spread > 1e-6 * rms, spread, rms)


def _missing(numbers: Numbers, days: NDArray[np.int64], parts: Decomposition, begin: int) -> list[Finding]:
    """Return channels that were measured, and for the last two days or more are not, though their detector is."""
    measured, _ = daily(np.where(np.isfinite(numbers.values), 1.0, 0.0), numbers.days)
    has = measured > 0.0
    n_days = len(days)
    if n_days < MIN_BEFORE + MIN_AFTER_LARGE:
        return []
    sizes = np.bincount(parts.group, minlength=len(parts.detectors))
    present = np.stack([np.bincount(parts.group, weights=row, minlength=len(sizes)) for row in has]) >= 0.5 * sizes
    seen = present[:, parts.group]  # shape (n_days, n_channels): days on which its detector has numbers
    findings = []
    for channel in np.flatnonzero(~has[-1] & seen[-1] & (sizes[parts.group] >= 2)):
        rows = np.flatnonzero(seen[:, channel])
        good = np.flatnonzero(has[rows, channel])
        if not len(good):
            continue
        last = int(good[-1])
        before = has[rows[max(last - 9, 0) : last + 1], channel]
        n_gone = len(rows) - last - 1
        if n_gone < MIN_AFTER_LARGE or len(before) < MIN_BEFORE or before.mean() < 0.8:
            continue
        onset = float(days[rows[last + 1]])
        if days[-1] < begin:
            continue
        findings.append(
            Finding(
                scope="amp",
                kind=Kind.MISSING,
                detector=int(parts.detectors[parts.group[channel]]),
                channel=int(channel),
                onset=onset,
                onset_error=0.5,
                size=0.0,
                size_error=0.0,
                before=0.0,
                significance=float(n_gone),
                base=0.0,
            )
        )
    return findings


def _merge(findings: list[Finding], parts: Decomposition) -> list[Finding]:
    """Make one finding of those that half of a detector's amps, or a quarter of the detectors, have at one time."""
    sizes = np.bincount(parts.group, minlength=len(parts.detectors))
    size_of = dict(zip(parts.detectors.tolist(), sizes.tolist(), strict=True))
    out: list[Finding] = [one for one in findings if one.scope == "camera"]
    of_detectors = [one for one in findings if one.scope == "detector"]
    amps: dict[int, list[Finding]] = {}
    for one in findings:
        if one.scope == "amp" and one.detector is not None:
            amps.setdefault(one.detector, []).append(one)
    alone: list[Finding] = []
    for detector, own in amps.items():
        for cluster in clusters(own):
            whole = [one for one in of_detectors if one.detector == detector and _same_time(one, cluster[0])]
            channels = {one.channel for one in cluster}
            if len(channels) >= max(4, size_of[detector] // 2):
                if whole:
                    continue  # the detector's own finding says it already
                of_detectors.append(together(cluster, "detector", detector=detector, n_channels=len(channels)))
            else:
                alone += cluster
    few: list[Finding] = []
    for cluster in clusters(of_detectors):
        detectors = {one.detector for one in cluster if one.detector is not None}
        if len(detectors) < max(4, len(parts.detectors) // 4):
            few += cluster
        elif not any(one.kind == cluster[0].kind and _same_time(one, cluster[0]) for one in out):
            shared = together(cluster, "camera", detector=None, n_channels=sum(size_of[d] for d in detectors))
            out.append(replace(shared, detectors=tuple(sorted(detectors))))
    n_all = len(parts.group)
    for cluster in clusters(alone):
        channels = {one.channel for one in cluster}
        if len(channels) < max(8, 0.15 * n_all) or len({one.detector for one in cluster}) < 4:
            few += cluster
        elif not any(one.kind == cluster[0].kind and _same_time(one, cluster[0]) for one in out):
            shared = together(cluster, "camera", detector=None, n_channels=len(channels))
            out.append(replace(shared, detectors=tuple(sorted({one.detector or 0 for one in cluster}))))
    counted = []
    for one in [*out, *few]:
        n = one.n_channels
        if one.scope == "detector" and n == 1:
            n = size_of.get(one.detector or 0, 1)
        elif one.scope == "camera" and n == 1:
            n = n_all
        counted.append(replace(one, n_channels=n))
    return counted


def _same_time(a: Finding, b: Finding) -> bool:
    if a.row != b.row:
        return False
    return abs(a.onset - b.onset) <= max(SAME_TIME_DAYS, a.onset_error, b.onset_error)


def clusters(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Return findings of one kind, sign and time together."""
    ordered = sorted(
        findings, key=lambda one: (one.kind, one.size > 0.0, -1 if one.row is None else one.row, one.onset)
    )
    found: list[list[Finding]] = []
    for one in ordered:
        last = found[-1][-1] if found else None
        alike = last is not None and last.kind == one.kind and (last.size > 0.0) == (one.size > 0.0)
        if last is not None and alike and last.row == one.row and one.onset - last.onset <= SAME_TIME_DAYS:
            found[-1].append(one)
        else:
            found.append([one])
    return found


def together(cluster: list[Finding], scope: str, *, detector: int | None, n_channels: int) -> Finding:
    """Return one finding for all of a cluster, dated and sized as they are in the middle."""
    best = max(cluster, key=lambda one: one.significance)
    return replace(
        best,
        scope=scope,
        detector=detector,
        channel=None,
        onset=float(np.median([one.onset for one in cluster])),
        size=float(np.median([one.size for one in cluster])),
        before=float(np.median([one.before for one in cluster])),
        base=float(np.median([one.base for one in cluster])),
        n_channels=n_channels,
    )
