"""Simulated months of calibration numbers with known truth, and a fast way into the store.

What a camera does of itself: every amp has its level, its noise and a slow wander; all share a little (the lamp, the
temperature); some numbers are bad by chance. What is put in on top is the truth that a search has to find.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from scipy.signal import lfilter

from payloads.trend.decompose import Scale
from rapid.camera.models import Camera, Purpose
from rapid.results.trend_schema import trend_channel, trend_values
from rapid.trends.channels import Channels, load_channels, save_channels
from rapid.trends.fold import ensure_series, mark_unwatched
from rapid.trends.models import day_obs_of
from rapid.trends.packing import pack

ROWS_AT_ONCE = 500
"""Arrays written in one statement: 6 MB for LSSTCam."""


@dataclass(frozen=True)
class SimulatedMetric:
    """How a number behaves that nothing happens to."""

    name: str
    image_type: str
    scale: Scale
    level: float
    spread: float
    """Amp to amp: part of the level, or in the unit for scale ``difference``."""

    noise: float
    """Day to day, likewise; a count has its own."""

    wander: float = 0.3
    """Scatter of the slow wander over the noise; it forgets itself in ten days."""

    shared: float = 0.5
    """Scatter of what all amps share over the noise."""

    bad: float = 1e-4
    """Part of the numbers that are bad by chance, by ten to thirty times the noise."""

    condition: str = ""


def _metrics() -> tuple[SimulatedMetric, ...]:
    ratio, difference, count = Scale.RATIO, Scale.DIFFERENCE, Scale.COUNT
    flat, dark = {"image_type": "flat", "condition": "r_57 4 s"}, {"image_type": "dark", "condition": "30 s"}
    own = (
        SimulatedMetric("mean_e", "bias", difference, 0.0, 0.3, 0.05),
        SimulatedMetric("stdev_e", "bias", ratio, 5.5, 0.08, 0.004),
        SimulatedMetric("n_hot_px", scale=count, level=120.0, spread=0.3, noise=0.0, **dark),  # type: ignore[arg-type]
        SimulatedMetric("dark_current_e_per_s", scale=difference, level=0.02, spread=0.005, noise=0.001, **dark),  # type: ignore[arg-type]
        SimulatedMetric("flat_level_e", scale=ratio, level=50_000.0, spread=0.05, noise=0.001, shared=2.0, **flat),  # type: ignore[arg-type]
        SimulatedMetric("flat_scatter", scale=ratio, level=0.006, spread=0.1, noise=0.004, **flat),  # type: ignore[arg-type]
        SimulatedMetric("gain_electron_per_adu", scale=ratio, level=1.5, spread=0.05, noise=0.0008, **flat),  # type: ignore[arg-type]
        SimulatedMetric("read_noise_e", "bias", ratio, 5.5, 0.08, 0.006),
    )
    more = []
    for k in range(32):
        like = own[k % len(own)]
        more.append(
            SimulatedMetric(
                f"{like.name}_like_{k:02d}",
                like.image_type,
                like.scale,
                like.level,
                like.spread,
                like.noise,
                wander=(0.0, 0.3, 0.6, 1.0)[k % 4],
                condition=like.condition,
            )
        )
    return (*own, *more)


METRICS = _metrics()
"""Forty numbers, as bias, dark and flat have them."""


def channels_of(camera: Camera, *, rafts: Iterable[str] | None = None) -> Channels:
    """Return the places of a camera's science and wavefront amps, or of some rafts' only."""
    wanted = None if rafts is None else set(rafts)
    channels = Channels()
    for detector in camera.detectors:
        if detector.purpose is not Purpose.GUIDER and (wanted is None or detector.raft in wanted):
            for amp in sorted(amp.name for amp in detector.amps):
                channels.add(detector.id, detector.name, amp)
    return channels


def simulate(
    metric: SimulatedMetric, n_days: int, n_channels: int, rng: np.random.Generator, *, per_day: int = 1
) -> NDArray[np.float64]:
    """Return the numbers of a camera that nothing happens to, shape (n_days * per_day, n_channels), float64.

    Parameters
    ----------
    per_day
        Exposures of a day. Each has noise of its own; the slow wander is the day's.
    """
    shape = (n_days * per_day, n_channels)
    white = rng.standard_normal(shape)
    memory = float(np.exp(-0.1))
    slow = lfilter([np.sqrt(1.0 - memory**2)], [1.0, -memory], rng.standard_normal((n_days + 50, n_channels)), axis=0)
    x = (
        white
        + metric.wander * np.repeat(slow[50:], per_day, axis=0)
        + metric.shared * rng.standard_normal((len(white), 1))
    )
    n_bad = rng.poisson(metric.bad * x.size)
    x[rng.integers(0, len(x), n_bad), rng.integers(0, n_channels, n_bad)] += rng.choice(
        (-1.0, 1.0), n_bad
    ) * rng.uniform(10.0, 30.0, n_bad)
    own = 1.0 + metric.spread * rng.standard_normal(n_channels).clip(-3.0, 3.0)
    if metric.scale is Scale.COUNT:
        # Most hot pixels are hot every day; those that come and go make the scatter.
        level = metric.level * own
        steady = 0.8 * level
        return np.maximum(np.round(steady + 0.2 * level + np.sqrt(0.2 * level) * x), 0.0)
    if metric.scale is Scale.RATIO:
        return metric.level * own * np.exp(metric.noise * x)
    return metric.level + (own - 1.0) + metric.noise * x


def load_arrays(
    engine: sa.Engine,
    camera: str,
    channels: Channels,
    metrics: Sequence[SimulatedMetric],
    numbers: Callable[[SimulatedMetric], NDArray[np.floating]],
    first: date,
    *,
    seq_num: int = 1,
    pipeline: str | None = None,
) -> int:
    """Write simulated numbers, one exposure a day, straight into the store's arrays.

    Parameters
    ----------
    numbers
        Gives a metric's numbers, shape (n_days, n_channels).
    first
        The first day.

    Returns
    -------
    n_values
        Numbers written.
    """
    with engine.begin() as connection:
        if not len(load_channels(connection, camera)):
            save_channels(connection, camera, channels, since=0)
    n_values = 0
    for metric in metrics:
        values = numbers(metric)
        key = (metric.name, metric.image_type, metric.condition)
        name = pipeline or metric.image_type
        days = [day_obs_of(first.toordinal() + i) for i in range(len(values))]
        with engine.begin() as connection:
            series = ensure_series(connection, camera, "prompt", name, [key])[key]
            rows = [
                {
                    "series": series,
                    "exposure": day * 100_000 + seq_num,
                    "day_obs": day,
                    "taken_at": None,
                    "packed": pack(one),
                }
                for day, one in zip(days, values, strict=True)
            ]
            for begin in range(0, len(rows), ROWS_AT_ONCE):
                connection.execute(trend_values.insert(), rows[begin : begin + ROWS_AT_ONCE])
            mark_unwatched(connection, {series}, days[0])
        n_values += values.size
    return n_values


def is_empty(engine: sa.Engine, camera: str) -> bool:
    """Return whether a camera has no trends yet."""
    with engine.connect() as connection:
        statement = sa.select(trend_channel.c.id).where(trend_channel.c.camera == camera).limit(1)
        return connection.execute(statement).first() is None
