"""Read the trends: which there are, one detector's history, and the drift of a whole camera.

One row holds one number of every channel for one exposure. A year of one metric is then a few hundred rows for either
question: the database cuts one detector's part out of each, or gives them whole for the focal plane.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from payloads.trend.kernels import column_medians
from rapid.results.trend_schema import trend_series, trend_values
from rapid.trends.channels import Channels, load_channels
from rapid.trends.feed import TrendFeed
from rapid.trends.models import (
    FIRST_DAY,
    LAST_DAY,
    AmpDrift,
    DriftMap,
    NoTrendError,
    SeriesFacts,
    SeriesHistory,
    SeriesKey,
    SeriesNumbers,
    date_of,
)
from rapid.trends.packing import ITEM, unpack
from rapid.trends.policy import unit_of

STRETCHES = 10
"""Parts into which a stretch of days is cut for its drift: medians of a tenth at either end, a slope through all ten."""

_S = trend_series.c
_V = trend_values.c


class TrendStore(TrendFeed):
    """Trends of all cameras.

    Parameters
    ----------
    engine
        That of a results store: ``TrendStore(results.engine)``.

    Notes
    -----
    Queries tell what has been brought in; call `update` before them for what was stored a moment ago.
    """

    def channels(self, camera: str) -> Channels:
        """Return the places of a camera's amps in the arrays."""
        with self.engine.connect() as connection:
            return load_channels(connection, camera)

    def camera_of(self, series: int) -> str | None:
        """Return whose a series is; None if there is no such series."""
        rows = self._fetch(sa.select(_S.camera).where(_S.id == series))
        return str(rows[0].camera) if rows else None

    def keys(
        self,
        camera: str,
        *,
        metric: str | None = None,
        image_type: str | None = None,
        condition: str | None = None,
        pipeline: str | None = None,
        run: str | None = "prompt",
    ) -> dict[int, SeriesKey]:
        """Return series by their numbers, in the order of metric, image type and condition."""
        conditions = [_S.camera == camera]
        for column, value in (
            (_S.metric, metric),
            (_S.image_type, image_type),
            (_S.condition, condition),
            (_S.pipeline, pipeline),
            (_S.run, run),
        ):
            if value is not None:
                conditions.append(column == value)
        ordered = sa.select(trend_series).where(*conditions)
        ordered = ordered.order_by(_S.metric, _S.image_type, _S.condition, _S.pipeline, _S.run)
        names = SeriesKey.model_fields
        return {
            row.id: SeriesKey.model_validate({name: row._mapping[name] for name in names})
            for row in self._fetch(ordered)
        }

    def metrics(self, camera: str, *, run: str | None = "prompt") -> list[SeriesFacts]:
        """Return every series that has numbers, and how many exposures of which days."""
        keys = self.keys(camera, run=run)
        count = sa.select(
            _V.series,
            sa.func.count().label("n"),
            sa.func.min(_V.day_obs).label("first"),
            sa.func.max(_V.day_obs).label("last"),
        ).group_by(_V.series)
        found = {row.series: row for row in self._fetch(count)}
        return [
            SeriesFacts(
                **key.model_dump(),
                unit=unit_of(key.metric),
                n_exposures=found[series].n,
                first_day=found[series].first,
                last_day=found[series].last,
            )
            for series, key in keys.items()
            if series in found
        ]

    def history(
        self,
        camera: str,
        metric: str,
        *,
        detector: int,
        amp: str | None = None,
        image_type: str | None = None,
        condition: str | None = None,
        pipeline: str | None = None,
        run: str | None = "prompt",
        first_day: int = FIRST_DAY,
        last_day: int = LAST_DAY,
    ) -> list[SeriesHistory]:
        """Return a detector's numbers of a metric, one history for each way it is measured.

        Parameters
        ----------
        amp
            Only this amp; "" for the detector's own number. All of them if left out.
        first_day, last_day
            Observing days, both included.

        Raises
        ------
        NoTrendError
            Raised for a metric, detector or amp of which nothing was ever stored.
        """
        keys = self.keys(camera, metric=metric, image_type=image_type, condition=condition, pipeline=pipeline, run=run)
        if not keys:
            raise NoTrendError("metric", metric, owner=camera)
        places = self.channels(camera).of_detector(detector)
        if not places:
            raise NoTrendError("detector", detector, owner=camera)
        if amp is not None:
            places = [place for place in places if place.amp == amp]
            if not places:
                raise NoTrendError("amp", amp, owner=f"detector {detector}")
        low = min(place.position for place in places)
        n = max(place.position for place in places) + 1 - low
        # The database cuts: 64 bytes of a row come over, not 13 000.
        part = sa.func.substr(_V.packed, low * ITEM + 1, n * ITEM, type_=sa.LargeBinary).label("part")
        statement = (
            sa.select(_V.series, _V.exposure, _V.day_obs, _V.taken_at, part)
            .where(_V.series.in_(list(keys)), _V.day_obs.between(first_day, last_day))
            .order_by(_V.series, _V.day_obs, _V.exposure)
        )
        rows: dict[int, list[sa.Row[Any]]] = {}
        for row in self._fetch(statement):
            rows.setdefault(row.series, []).append(row)
        histories = []
        for series, key in keys.items():
            numbers = unpack([row.part or b"" for row in rows.get(series, [])], n)
            columns = {place.amp: numbers[:, place.position - low] for place in places}
            columns = {name: column for name, column in columns.items() if np.isfinite(column).any()}
            if not columns:
                continue
            kept = np.flatnonzero(np.any([np.isfinite(column) for column in columns.values()], axis=0))
            own = [rows[series][i] for i in kept]
            histories.append(
                SeriesHistory(
                    key=key,
                    unit=unit_of(metric),
                    detector=detector,
                    detector_name=places[0].detector_name,
                    exposures=[row.exposure for row in own],
                    days=[row.day_obs for row in own],
                    times=[row.taken_at for row in own],
                    amps={name: _plain(column[kept]) for name, column in columns.items()},
                )
            )
        return histories

    def numbers(
        self, series: int, key: SeriesKey, *, first_day: int = FIRST_DAY, last_day: int = LAST_DAY, n_channels: int
    ) -> SeriesNumbers:
        """Return a series' numbers of the whole camera, in the order they were taken."""
        statement = (
            sa.select(_V.exposure, _V.day_obs, _V.packed)
            .where(_V.series == series, _V.day_obs.between(first_day, last_day))
            .order_by(_V.day_obs, _V.exposure)
        )
        rows = self._fetch(statement)
        return SeriesNumbers(
            series=series,
            key=key,
            exposures=np.array([row.exposure for row in rows], np.int64),
            days=np.array([row.day_obs for row in rows], np.int64),
            values=unpack([row.packed for row in rows], n_channels),
        )

    def drift_map(
        self,
        camera: str,
        metric: str,
        *,
        image_type: str | None = None,
        condition: str | None = None,
        pipeline: str | None = None,
        run: str = "prompt",
        first_day: int = FIRST_DAY,
        last_day: int = LAST_DAY,
    ) -> DriftMap:
        """Return how a number changed, for every amp; of several ways it is measured, the one with most exposures.

        Raises
        ------
        NoTrendError
            Raised if there is no such trend in these days.
        """
        keys = self.keys(camera, metric=metric, image_type=image_type, condition=condition, pipeline=pipeline, run=run)
        count = (
            sa.select(_V.series, sa.func.count().label("n"))
            .where(_V.series.in_(list(keys)), _V.day_obs.between(first_day, last_day))
            .group_by(_V.series)
        )
        counts = {row.series: row.n for row in self._fetch(count)} if keys else {}
        if not counts:
            raise NoTrendError("metric", metric, owner=camera)
        series = max(counts, key=lambda one: (counts[one], -one))
        channels = self.channels(camera)
        found = self.numbers(series, keys[series], first_day=first_day, last_day=last_day, n_channels=len(channels))
        days = np.array([date_of(int(day)).toordinal() for day in found.days], np.float64)
        drift = drift_of(found.values.astype(np.float64), days)
        amps: dict[int, dict[str, AmpDrift]] = {}
        for row in channels.rows:
            facts = [_finite(column[row.position]) for column in drift]
            if facts[0] is not None or facts[1] is not None:
                amps.setdefault(row.detector, {})[row.amp] = AmpDrift(
                    first=facts[0],
                    last=facts[1],
                    change=facts[2],
                    change_percent=facts[3],
                    change_sigma=facts[4],
                    slope_per_day=facts[5],
                )
        return DriftMap(
            key=keys[series],
            unit=unit_of(metric),
            first_day=int(found.days[0]),
            last_day=int(found.days[-1]),
            n_exposures=len(found.days),
            amps=amps,
            names={row.detector: row.detector_name for row in channels.rows if row.detector in amps},
        )


def drift_of(values: NDArray[np.float64], days: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Measure how each channel changed.

    Parameters
    ----------
    values : ndarray of shape (n_exposures, n_channels), float64
        In the order they were taken.
    days : ndarray of shape (n_exposures,), float64

    Returns
    -------
    first, last, change, change_percent, change_sigma, slope_per_day : ndarray of shape (n_channels,), float64
        NaN where not known.
    """
    n, n_channels = values.shape
    cuts = np.array_split(np.arange(n), min(STRETCHES, n))
    medians = np.stack([column_medians(np.ascontiguousarray(values[rows])) for rows in cuts])
    times = np.array([days[rows].mean() for rows in cuts])
    first, last = medians[0], medians[-1]
    change = last - first
    with np.errstate(invalid="ignore", divide="ignore"):
        percent = np.where(first != 0.0, 100.0 * change / np.abs(first), np.nan)
        if n >= 2 * STRETCHES:
            noise = 1.4826 * column_medians(np.abs(np.diff(values, axis=0))) / np.sqrt(2.0)
            # Of a median of k numbers, pi/2 the variance of a mean's; two of them.
            error = noise * np.sqrt(0.5 * np.pi * (1.0 / len(cuts[0]) + 1.0 / len(cuts[-1])))
            sigma = np.where(error > 0.0, change / error, np.nan)
        else:
            sigma = np.full(n_channels, np.nan)
    pairs = [(a, b) for a in range(len(cuts)) for b in range(a + 1, len(cuts)) if times[b] > times[a]]
    if pairs:
        slopes = np.stack([(medians[b] - medians[a]) / (times[b] - times[a]) for a, b in pairs])
        slope = column_medians(slopes)
    else:
        slope = np.full(n_channels, np.nan)
    return first, last, change, percent, sigma, slope


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(column: Iterable[np.float32]) -> list[float | None]:
    # The shortest text that reads back as the same float32: a document need not show the double's digits.
    return [float(str(value)) if np.isfinite(value) else None for value in column]
