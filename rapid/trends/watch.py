"""Search new numbers for changes, and keep the alarms up to date.

Each time the last half year of every series that has new numbers is searched as a whole: nothing is carried over from
one search to the next, so that a corrected number, or an exposure that was excluded, corrects the alarms as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray

from payloads.trend.decompose import Scale
from payloads.trend.search import Finding, Kind, Numbers, clusters, search, together
from rapid.results.schema import exclusion, exposure_exclusion
from rapid.results.sql import naive
from rapid.trends.alarms import AlarmStore
from rapid.trends.channels import Channels
from rapid.trends.models import (
    Alarm,
    AlarmState,
    Scope,
    SeriesKey,
    SeriesNumbers,
    date_of,
    day_obs_of,
    days_before,
    utc_now,
)
from rapid.trends.policy import MetricPolicy, TrendPolicy, site_policy, unit_of
from rapid.trends.store import TrendStore

log = structlog.get_logger()

WINDOW_DAYS = 180
"""Days searched: long enough for a drift of a permille a month, short enough that last year's level does not matter."""

STRIDE_DAYS = 30
"""A long stretch of new numbers is searched in windows that move by so much: none of its changes is too far back."""

MIN_RAFT_DETECTORS = 3


class TrendWatch:
    """Searches what is new.

    Parameters
    ----------
    engine
        That of a results store: ``TrendWatch(results.engine)``.
    policy
        What matters; the installation's if left out.
    """

    def __init__(self, engine: sa.Engine, *, policy: TrendPolicy | None = None, window_days: int = WINDOW_DAYS) -> None:
        self.trends = TrendStore(engine)
        self.alarms = AlarmStore(engine)
        self._policy = policy or site_policy()
        self._window_days = window_days

    def run(
        self,
        camera: str | None = None,
        *,
        now: datetime | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Alarm]:
        """Bring the trends up to date, search what is new, and store what was found.

        Parameters
        ----------
        should_stop
            Asked before every series; what is left then is searched next time.

        Returns
        -------
        raised
            Alarms that are new.

        Raises
        ------
        StoreError
            Raised if the database does not answer; what was not searched is searched next time.
        """
        self.trends.update()
        raised: list[Alarm] = []
        cameras: dict[str, tuple[dict[int, SeriesKey], Channels]] = {}
        for series, day in self.alarms.unwatched(camera).items():
            if should_stop():
                break
            key = self._key(series, cameras)
            if key is not None:
                raised += self._watch(series, key, cameras[key.camera][1], day, now or utc_now())
        for alarm in raised:
            log.warning("trend alarm", alarm=alarm.id, target=alarm.target, kind=alarm.kind.value, says=alarm.text)
        return raised

    def _key(self, series: int, cameras: dict[str, tuple[dict[int, SeriesKey], Channels]]) -> SeriesKey | None:
        for keys, _ in cameras.values():
            if series in keys:
                return keys[series]
        name = self.trends.camera_of(series)
        if name is None:
            return None
        keys = self.trends.keys(name, run=None)
        cameras[name] = (keys, self.trends.channels(name))
        return keys.get(series)

    def _watch(self, series: int, key: SeriesKey, channels: Channels, from_day: int, now: datetime) -> list[Alarm]:
        policy = self._policy.of(key.metric, key.image_type)
        if not policy.alarms:
            # A number that shall alarm no longer closes the alarms it has raised.
            self.alarms.reconcile(series, [], window_first_day=0, outliers_from=0, watched=from_day)
            return []
        found = self.trends.numbers(
            series, key, first_day=days_before(from_day, self._window_days), n_channels=len(channels)
        )
        if not len(found.days):
            self.alarms.reconcile(series, [], window_first_day=0, outliers_from=0, watched=from_day)
            return []
        values = self._without_excluded(found, channels)
        raised: list[Alarm] = []
        ends = _ends(from_day, int(found.days[-1]))
        begin = from_day
        for end in ends:
            first = days_before(end, self._window_days)
            rows = np.flatnonzero((found.days >= first) & (found.days <= end))
            if len(rows):
                part = SeriesNumbers(series, key, found.exposures[rows], found.days[rows], values[rows])
                alarms = self.look(part, channels, policy, begin, now)
                raised += self.alarms.reconcile(
                    series,
                    alarms,
                    window_first_day=int(part.days[0]),
                    outliers_from=begin,
                    watched=from_day if end == ends[-1] else None,
                )
            begin = end
        return raised

    @staticmethod
    def look(
        found: SeriesNumbers, channels: Channels, policy: MetricPolicy, from_day: int, now: datetime
    ) -> list[Alarm]:
        """Search a window of numbers; return what it shows as alarms that are not stored."""
        amps = channels.is_amp
        has_numbers = np.isfinite(found.values).any(axis=0)
        # The detector's own number repeats what its amps say, unless only the detector has one.
        use = np.flatnonzero(has_numbers & amps if (has_numbers & amps).any() else has_numbers)
        days = np.array([date_of(int(day)).toordinal() for day in found.days], np.int64)
        numbers = Numbers(found.values[:, use], days, channels.detectors[use])
        findings = search(numbers, policy.scale, policy.search, from_day=date_of(from_day).toordinal())
        findings = _by_raft(findings, channels)
        return [_alarm(one, found, channels, use, days, policy.scale, now) for one in findings]

    def _without_excluded(self, found: SeriesNumbers, channels: Channels) -> NDArray[np.float32]:
        """Return numbers with NaN for what somebody has excluded: it is known to be bad, and shall not alarm."""
        detectors = channels.detectors
        e, x = exposure_exclusion.c, exclusion.c
        values = found.values
        with self.trends.engine.connect() as connection:
            bad = connection.execute(
                sa.select(e.exposure, e.detector).where(
                    e.camera == found.key.camera,
                    e.ended_at.is_(None),
                    e.exposure.between(int(found.exposures.min()), int(found.exposures.max())),
                )
            ).fetchall()
            last = naive(datetime.combine(date_of(int(found.days[-1])), datetime.max.time()))
            off = connection.execute(
                sa.select(x.detector, x.amp).where(
                    x.camera == found.key.camera, x.valid_from <= last, sa.or_(x.valid_to.is_(None), x.valid_to > last)
                )
            ).fetchall()
        if bad or off:
            values = values.copy()
        for row in bad:
            columns = slice(None) if row.detector < 0 else detectors == row.detector
            values[np.ix_(found.exposures == row.exposure, np.arange(len(detectors))[columns])] = np.nan
        for row in off:
            if row.amp:
                position = channels.position(row.detector, row.amp)
                if position is not None:
                    values[:, position] = np.nan
            else:
                values[:, detectors == row.detector] = np.nan
        return values


def _ends(from_day: int, last_day: int) -> list[int]:
    """Return the last days of the windows that cover everything from a day on."""
    begin, end = date_of(from_day).toordinal(), date_of(last_day).toordinal()
    days = [day_obs_of(day) for day in range(begin + STRIDE_DAYS, end, STRIDE_DAYS)]
    return [*days, last_day]


def _raft_of(name: str) -> str | None:
    return name.partition("_")[0] if "_" in name else None


def _by_raft(findings: Sequence[Finding], channels: Channels) -> list[Finding]:
    """Make one finding of those that half of a raft's detectors have at one time."""
    names = {row.detector: row.detector_name for row in channels.rows}
    size: dict[str, int] = {}
    for name in names.values():
        raft = _raft_of(name)
        if raft:
            size[raft] = size.get(raft, 0) + 1
    out = [one for one in findings if one.scope != "detector"]
    by_raft: dict[str, list[Finding]] = {}
    for one in findings:
        if one.scope == "detector":
            by_raft.setdefault(_raft_of(names.get(one.detector or 0, "")) or "", []).append(one)
    for raft, own in by_raft.items():
        for cluster in clusters(own):
            detectors = {one.detector for one in cluster if one.detector is not None}
            if not raft or len(detectors) < max(MIN_RAFT_DETECTORS, size[raft] // 2):
                out += cluster
                continue
            shared = together(cluster, "raft", detector=None, n_channels=sum(one.n_channels for one in cluster))
            out.append(replace(shared, detectors=tuple(sorted(detectors))))
    return sorted(out, key=lambda one: -one.significance)


def _sizes(one: Finding, scale: Scale) -> dict[str, float | None]:
    """Return size, error, part of the level and slope in the number's own unit."""
    if scale is Scale.RATIO:
        relative = float(np.expm1(one.size))
        if one.scope != "amp" or not one.base:
            return {"size": None, "size_error": None, "relative": relative, "slope_per_day": one.slope}
        level = one.base * float(np.exp(one.before))
        return {
            "size": level * relative,
            "size_error": level * float(np.exp(one.size)) * one.size_error,
            "relative": relative,
            "slope_per_day": None if one.slope is None else one.slope * level,
        }
    if scale is Scale.COUNT:
        # Twice the square root goes back to a count; its error with it.
        after = max(one.before + one.size, 0.0)
        size = 0.25 * (after**2 - max(one.before, 0.0) ** 2)
        slope = None if one.slope is None or not one.size else size * one.slope / one.size
        return {"size": size, "size_error": 0.5 * after * one.size_error, "relative": None, "slope_per_day": slope}
    return {"size": one.size, "size_error": one.size_error, "relative": None, "slope_per_day": one.slope}


def _alarm(
    one: Finding,
    found: SeriesNumbers,
    channels: Channels,
    use: NDArray[np.int64],
    days: NDArray[np.int64],
    scale: Scale,
    now: datetime,
) -> Alarm:
    channel = channels.rows[int(use[one.channel])] if one.channel is not None else None
    names = {row.detector: row.detector_name for row in channels.rows}
    name = names.get(one.detector) if one.detector is not None else None
    first = one.row if one.row is not None else int(np.searchsorted(days, round(one.onset)))
    sizes: dict[str, Any] = _sizes(one, scale)
    if one.kind is Kind.MISSING:
        sizes = {"size": None, "size_error": None, "relative": None, "slope_per_day": None}
    raft = _raft_of(name) if name else None
    if one.scope == "raft" and one.detectors:
        raft = _raft_of(names[one.detectors[0]])
    key = found.key
    # One bad number of one amp is worth knowing of while it is the newest; a bad flat of a detector has to be dealt with.
    is_past = one.kind is Kind.OUTLIER and one.scope == "amp" and day_obs_of(one.onset) < int(found.days[-1])
    return Alarm(
        camera=key.camera,
        series=found.series,
        metric=key.metric,
        image_type=key.image_type,
        condition=key.condition,
        pipeline=key.pipeline,
        run=key.run,
        scope=Scope(one.scope),
        raft=raft,
        detector=one.detector,
        detector_name=name,
        amp=channel.amp if channel is not None else None,
        kind=one.kind,
        state=AlarmState.OVER if is_past else AlarmState.OPEN,
        over_reason="a single bad number; those after it are as before" if is_past else "",
        onset_day=day_obs_of(one.onset),
        onset_error_days=one.onset_error,
        exposure=int(found.exposures[min(first, len(found.exposures) - 1)]),
        **sizes,
        unit=unit_of(key.metric),
        significance=one.significance,
        n_channels=one.n_channels,
        detectors=list(one.detectors),
        raised_day=int(found.days[-1]),
        raised_at=now,
        updated_at=now,
    )
