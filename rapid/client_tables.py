"""A night as tables, in a script or a notebook: what the pages show, from the display's HTTP interface.

Three lines::

    data = RapidData("http://display.example.org:8080")
    night = data.night(20261120)
    print(night["seq_num", "physical_filter", "psf_fwhm_arcsec_median"])

Tables are astropy's, with units; what was not measured is masked, never 0. `as_frame` makes a pandas frame of one.
"""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import datetime
from http.client import HTTPException
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import MaskedColumn, Table

from rapid.errors import ConfigurationError, NotFoundError, RapidError, StoreError

_SYMBOLS = {
    "″": u.arcsec,
    "µm": u.um,
    "mm": u.mm,
    "nm": u.nm,
    "e⁻": u.electron,
    "e⁻/s": u.electron / u.s,
    "e⁻/ADU": u.electron / u.adu,
    "ADU": u.adu,
    "px": u.pix,
    "°": u.deg,
    "°C": u.deg_C,
    "s": u.s,
    "ms": u.ms,
    "mag": u.mag,
    "mag/″²": u.mag / u.arcsec**2,
    "%": u.percent,
}
_ENDINGS = {
    "_arcsec": "″",
    "_mag_arcsec2": "mag/″²",
    "_electron_per_adu": "e⁻/ADU",
    "_e_per_s": "e⁻/s",
    "_electron": "e⁻",
    "_adu": "ADU",
    "_um": "µm",
    "_mm": "mm",
    "_nm": "nm",
    "_px": "px",
    "_deg": "°",
    "_mag": "mag",
    "_percent": "%",
    "_ms": "ms",
    "_s": "s",
    "_c": "°C",
    "_e": "e⁻",
}
_NO_UNIT = frozenset({"psf_e", "donut_e"})
"""Ellipticities: they end like a number of electrons."""


class DataError(RapidError):
    """The display refused what was asked, with its reason.

    Attributes
    ----------
    status
        The HTTP status.
    said
        The display's own word for it: ``bad_request``, ``store_error``, ...
    """

    code = "data_error"

    def __init__(self, status: int, said: str, message: str) -> None:
        super().__init__(message, status=status, said=said)
        self.status = status
        self.said = said


class RapidData:
    """Reads what a display shows.

    Parameters
    ----------
    url
        Address of the display: ``http://localhost:8080``.
    timeout_s
        How long one answer may take.

    Raises
    ------
    ConfigurationError
        Raised for an address that is none.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigurationError("url", f"{url!r} is no address of a display: http://host:port")
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._units: dict[str, str] | None = None

    def get(self, path: str, **query: Any) -> Any:
        """Return any answer of the interface as it is: ``get("/api/now")``. All of them are listed at ``/openapi.json``.

        Raises
        ------
        NotFoundError
            Raised for what the display does not know.
        DataError
            Raised if it refuses, with its reason.
        StoreError
            Raised if it does not answer.
        """
        given = {name: value for name, value in query.items() if value is not None}
        address = f"{self._url}{urllib.parse.quote(path)}" + (f"?{urllib.parse.urlencode(given)}" if given else "")
        request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310 - http, checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310 - http, checked
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise _refusal(error, path) from None
        except (OSError, HTTPException, ValueError) as error:
            raise StoreError(f"display at {self._url}: {error}") from error

    def nights(self) -> Table:
        """Return all nights: ``day_obs``, ``n_exposures``; newest first."""
        return self._table(self.get("/api/nights"), first=("day_obs", "n_exposures"))

    def night(self, day_obs: int) -> Table:
        """Return a night's exposures, oldest first: facts, then every number that was measured, with units.

        An unknown night is a table without rows.
        """
        rows = [_flat(row) for row in reversed(self.get(f"/api/nights/{day_obs}")["exposures"])]
        return self._table(rows, first=("exposure_id", "seq_num", "image_type", "physical_filter", "begin", "state"))

    def exposure(self, exposure_id: int) -> Table:
        """Return an exposure's detectors: state, reason, every number that was measured."""
        view = self.get(f"/api/exposures/{exposure_id}")
        table = self._table([_flat(cell) for cell in view["detectors"]], first=("detector", "name", "state", "reason"))
        table.meta.update(exposure_id=exposure_id, products=view["products"], info=view["info"])
        return table

    def amps(self, exposure_id: int, detector: int, *, pipeline: str | None = None) -> Table:
        """Return a detector's amps: a row for each amp and pipeline.

        Parameters
        ----------
        pipeline
            Only of this one.
        """
        view = self.get(f"/api/exposures/{exposure_id}/detectors/{detector}")
        rows = [
            {"pipeline": result["pipeline"], "amp": amp, **numbers}
            for result in view["results"]
            if pipeline in {None, result["pipeline"]}
            for amp, numbers in result["amps"].items()
        ]
        table = self._table(rows, first=("pipeline", "amp"))
        table.meta.update(exposure_id=exposure_id, detector=detector, name=view["name"])
        return table

    def stars(self, exposure_id: int, detector: int) -> Table:
        """Return the stars that were measured on a detector: places [px of the trimmed image], fluxes, shapes.

        Raises
        ------
        NotFoundError
            Raised if no pipeline kept a list of stars of this detector.
        """
        view = self.get(f"/api/exposures/{exposure_id}/detectors/{detector}")
        key = next((found for result in view["results"] if (found := result["products"].get("stars"))), None)
        if key is None:
            raise NotFoundError("list of stars", f"{view['name']} of {exposure_id}")
        columns = {name: values for name, values in self.get(f"/products/{key}").items() if isinstance(values, list)}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        table = self._table(rows, first=[name for name in ("x", "y") if name in columns])
        table.meta.update(exposure_id=exposure_id, detector=detector, name=view["name"])
        return table

    def focus(self, day_obs: int) -> Table:
        """Return a night's measurements of focus: from sweeps, donut pairs and wavefronts, oldest first."""
        rows = self.get(f"/api/focus/{day_obs}")["history"]
        return self._table(rows, first=("exposure_id", "seq_num", "begin", "kind", "focus_offset_um", "error_um"))

    def log(self, day_obs: int) -> Table:
        """Return what observers wrote in a night."""
        rows = self.get(f"/api/log/{day_obs}")["entries"]
        return self._table(rows, first=("id", "exposure_id", "seq_num", "created_at", "author", "flag", "text"))

    def trend(self, metric: str, detector: int | str, *, amp: str | None = None, **where: Any) -> Table:
        """Return a number of a detector's amps over months: one row for each exposure and amp.

        Parameters
        ----------
        **where
            ``image_type``, ``condition``, ``pipeline``, ``first_day``, ``last_day``.
        """
        found = self.get("/api/trends/series", metric=metric, detector=detector, amp=amp, **where)
        rows = [
            {
                "exposure_id": exposure,
                "day_obs": day,
                "image_type": series["key"]["image_type"],
                "condition": series["key"]["condition"],
                "amp": name,
                metric: values[at],
            }
            for series in found["series"]
            for name, values in series["amps"].items()
            for at, (exposure, day) in enumerate(zip(series["exposures"], series["days"], strict=True))
        ]
        table = self._table(rows, first=("exposure_id", "day_obs", "image_type", "condition", "amp"))
        table.meta.update(detector=found["detector"], name=found["detector_name"], alarms=found["alarms"])
        return table

    def _table(self, rows: list[dict[str, Any]], *, first: Iterable[str]) -> Table:
        if self._units is None:
            self._units = {one["key"]: one["unit"] for one in self.get("/api/camera")["quantities"]}
        return make_table(rows, first=first, units=self._units)


def make_table(rows: list[dict[str, Any]], *, first: Iterable[str], units: Mapping[str, str]) -> Table:
    """Return rows as a table: columns that come first, then the others by name; what is None is masked.

    Parameters
    ----------
    units
        Symbol by metric; others are read from the name's ending.
    """
    leading = list(first)
    others = sorted({name for row in rows for name in row} - set(leading))
    columns = []
    for name in [*leading, *others]:
        values = [row.get(name) for row in rows]
        unit = _unit_of(name, units)
        columns.append(_column(name, values, unit))
    return Table(columns, copy=False)


def as_frame(table: Table) -> Any:
    """Return a table as a pandas frame; units are in ``frame.attrs["units"]``, masked values are missing.

    Raises
    ------
    ConfigurationError
        Raised if pandas is not installed.
    """
    try:
        frame = table.to_pandas()
    except ImportError as error:
        raise ConfigurationError("pandas", "is not installed: pip install pandas") from error
    frame.attrs["units"] = {name: str(table[name].unit) for name in table.colnames if table[name].unit is not None}
    return frame


def _column(name: str, values: list[Any], unit: Any) -> MaskedColumn:
    mask = [value is None or (isinstance(value, float) and not math.isfinite(value)) for value in values]
    known = [value for value, is_missing in zip(values, mask, strict=True) if not is_missing]
    kinds = {type(value) for value in known}
    blank: Any
    dtype: np.dtype[Any]
    if kinds == {bool}:
        blank, dtype = False, np.dtype(bool)
    elif kinds == {int}:
        blank, dtype = 0, np.dtype(np.int64)
    elif kinds and kinds <= {int, float}:
        blank, dtype = math.nan, np.dtype(np.float64)
    elif known and all(_is_time(value) for value in known):
        values = [value if gone else _naive(value) for value, gone in zip(values, mask, strict=True)]
        blank, dtype, unit = datetime(1970, 1, 1), np.dtype("datetime64[us]"), None  # noqa: DTZ001 - as numpy keeps them
    else:
        values = [value if gone else _word(value) for value, gone in zip(values, mask, strict=True)]
        width = max([1, *(len(value) for value, gone in zip(values, mask, strict=True) if not gone)])
        blank, dtype, unit = "", np.dtype(f"U{width}"), None
    filled = [blank if gone else value for value, gone in zip(values, mask, strict=True)]
    return MaskedColumn(np.array(filled, dtype=dtype), name=name, mask=mask, unit=unit)


def _unit_of(name: str, units: Mapping[str, str]) -> Any:
    base = name
    for ending in ("_median", "_mean", "_scatter", "_error"):
        base = base.removesuffix(ending)
    symbol = units.get(name, units.get(base))
    if symbol is None and base not in _NO_UNIT:
        symbol = next((found for ending, found in _ENDINGS.items() if base.endswith(ending)), None)
    return _SYMBOLS.get(symbol or "")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its metrics and timings beside its facts; lists as their number."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "metrics":
            flat |= value
        elif name == "timings":
            flat |= {f"took_{key}": seconds for key, seconds in value.items()}
        elif name in {"missing", "excluded"}:
            flat[f"{name}_detectors"] = " ".join(one["name"] for one in value)
        else:
            flat[name] = value
    return flat


def _is_time(value: object) -> bool:
    if not isinstance(value, str) or len(value) < 19 or value[10:11] != "T":
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _naive(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _refusal(error: urllib.error.HTTPError, path: str) -> RapidError:
    try:
        facts = json.load(error)["error"]
    except (ValueError, KeyError, TypeError, OSError):
        facts = {"code": "http", "message": f"the display answered {error.code}"}
    if error.code == 404:
        return NotFoundError("answer of the display", path)
    return DataError(error.code, str(facts.get("code", "http")), str(facts.get("message", error.reason)))
