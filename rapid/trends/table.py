"""Trends as tables: what a notebook wants."""

from collections.abc import Sequence

import numpy as np
from astropy.table import MaskedColumn, Table

from rapid.trends.models import SeriesHistory


def history_table(histories: Sequence[SeriesHistory]) -> Table:
    """Return histories as one table, a row for each number.

    Parameters
    ----------
    histories
        From `rapid.trends.store.TrendStore.history`.

    Returns
    -------
    table
        Columns ``day_obs``, ``exposure``, ``time`` (ISO, TAI), ``detector``, ``detector_name``, ``amp`` (empty for the
        detector as a whole), ``image_type``, ``condition``, ``pipeline``, ``run``, ``metric``, and ``value``, masked
        where not measured, with its unit.
    """
    rows = [
        (
            day,
            exposure,
            time.isoformat() if time is not None else "",
            history.detector,
            history.detector_name,
            amp,
            history.key.image_type,
            history.key.condition,
            history.key.pipeline,
            history.key.run,
            history.key.metric,
            value,
        )
        for history in histories
        for amp, values in history.amps.items()
        for day, exposure, time, value in zip(history.days, history.exposures, history.times, values, strict=True)
    ]
    names = (
        "day_obs", "exposure", "time", "detector", "detector_name", "amp", "image_type", "condition", "pipeline", "run",
        "metric",
    )  # fmt: skip
    kinds = (np.int64, np.int64, str, np.int64, str, str, str, str, str, str, str)
    table = Table()
    for place, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        table[name] = np.array([row[place] for row in rows], dtype=kind)
    values = [row[-1] for row in rows]
    table["value"] = MaskedColumn(
        [0.0 if value is None else value for value in values],
        mask=[value is None for value in values],
        unit=(histories[0].unit or None) if histories else None,
        dtype=float,
    )
    return table
