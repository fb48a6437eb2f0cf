"""Turn what PipelineTasks write into metrics, tables and files."""

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io import fits

from payloads.plugin import Frame, Metric, ProductFile
from rapid.errors import PayloadError

MAX_METRICS = 2000
"""Of one dataset: more is no summary."""
_NO_NAME = re.compile(r"[^A-Za-z0-9_]+")


def add_result(frame: Frame, name: str, value: Any, *, is_asked_for: bool) -> None:
    """Add a dataset to a frame's results.

    Parameters
    ----------
    is_asked_for
        Whether the dataset was named: one of a kind that cannot be returned is an error then, and is else left out.

    Raises
    ------
    PayloadError
        Raised for a mapping of thousands of numbers, or for a dataset that was asked for and is of no known kind.
    """
    name = _NO_NAME.sub("_", name)
    if isinstance(value, Mapping):
        columns = {str(key): column for key, column in value.items()}
        is_table = columns and all(isinstance(column, list | tuple) for column in columns.values())
        if is_table and len({len(column) for column in columns.values()}) == 1:
            frame.tables[name] = {key: list(column) for key, column in columns.items()}
            return
        numbers = flatten(columns, prefix=name)
        if len(numbers) > MAX_METRICS:
            raise PayloadError(f"{name} has {len(numbers)} numbers; {MAX_METRICS} are taken as metrics")
        frame.metrics |= numbers
        return
    table = columns_of(value)
    if table is not None:
        frame.tables[name] = table
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        if is_asked_for:
            frame.files[name] = ProductFile(_fits_of(value), "fits", "application/fits")
    elif is_asked_for:
        raise PayloadError(f"{name} is a {type(value).__name__}: neither mapping, table nor array")


def flatten(value: Mapping[str, Any], *, prefix: str) -> dict[str, Metric]:
    """Return the scalars of nested mappings by joined name; what is no scalar is left out.

    Examples
    --------
    >>> flatten({"median": 2.5, "fit": {"ok": True, "of": [1, 2]}}, prefix="sky")
    {'sky_median': 2.5, 'sky_fit_ok': True}
    """
    numbers: dict[str, Metric] = {}
    for key, item in value.items():
        name = f"{prefix}_{_NO_NAME.sub('_', str(key))}"
        scalar = item.item() if isinstance(item, np.generic) else item
        if isinstance(scalar, Mapping):
            numbers |= flatten(scalar, prefix=name)
        elif scalar is None or isinstance(scalar, bool | int | str):
            numbers[name] = scalar
        elif isinstance(scalar, float):
            numbers[name] = scalar if math.isfinite(scalar) else None
    return numbers


def columns_of(value: Any) -> dict[str, list[Any]] | None:
    """Return a table of pandas, pyarrow, astropy or numpy by column; None for anything else."""
    if hasattr(value, "to_pydict"):  # pyarrow
        return {str(name): list(column) for name, column in value.to_pydict().items()}
    if isinstance(value, np.ndarray) and value.dtype.names:
        return {name: value[name].tolist() for name in value.dtype.names}
    names = getattr(value, "colnames", None)  # astropy
    if names is None and hasattr(value, "columns") and hasattr(value, "iloc"):  # pandas
        names = list(value.columns)
    if names is None:
        return None
    return {str(name): np.asarray(value[name]).tolist() for name in names}


def cpu_seconds(metadata: Any) -> float | None:
    """Return the CPU time of a task's quantum from its metadata [s]; None if it does not tell."""
    try:
        quantum = metadata["quantum"]
        return float(quantum["endCpuTime"]) - float(quantum["startCpuTime"])
    except (KeyError, TypeError, ValueError):
        return None


def _fits_of(array: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    fits.PrimaryHDU(array.astype(np.uint8) if array.dtype.kind == "b" else array).writeto(out)
    return out.getvalue()
