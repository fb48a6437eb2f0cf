"""Rows for ConsDB over its REST interface, off everybody's way.

Formats: ``handlers/external.py`` and ``models.py`` of lsst-dm/consdb. A row goes to
``POST /insert/{instrument}/{table}/by_seq_num/{day_obs}/{seq_num}[/{detector}]?u=1`` with ``{"values": {...}}``: it
changes only the columns it names. The bulk form is not used: with ``u=1`` it sets every column a row does not name to
null, and so takes away what others wrote. Values are numbers and texts; null is refused, so that what was not measured
is left out. A column that the server does not have makes it refuse the whole row: the table's columns are asked for
first, others dropped and reported.
"""

import json
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import structlog
import urllib3
import yaml
from pydantic import BaseModel, ConfigDict, Field

from rapid.errors import ConfigurationError, RefusedError, StoreError
from rapid.publish.metrics import PublishMetrics
from rapid.publish.night import dump
from rapid.publish.outbox import Outbox, Parcel
from rapid.publish.status import DestinationStatus, SentRow
from rapid.results.models import DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

SKY = frozenset({"science", "acq", "engtest", "focus"})
"""Image types that are visits, and have a PSF to speak of."""

SCHEMA_S = 3600.0
"""How long a table's columns are taken for granted [s]."""

MAX_ANSWER = 2_000
"""Letters of an answer that are looked at."""

CONNECT_S, READ_S = 5.0, 30.0

Value = float | int | str | bool


class ConsDBColumns(BaseModel):
    """Which metric fills which column."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: dict[str, str] = Field(default_factory=dict)
    visit: dict[str, str] = Field(default_factory=dict)
    visit_total: dict[str, str] = Field(default_factory=dict)
    exposure: dict[str, str] = Field(default_factory=dict)


@lru_cache(maxsize=1)
def load_columns() -> ConsDBColumns:
    """Return the packaged table of columns."""
    text = (resources.files("rapid.publish") / "data" / "consdb.yaml").read_text(encoding="utf-8")
    return ConsDBColumns.model_validate(yaml.safe_load(text))


def plain(values: Mapping[str, object]) -> dict[str, Value]:
    """Return the values that ConsDB takes: no null, NaN or infinity.

    Examples
    --------
    >>> plain({"a": 1, "b": None, "c": float("nan"), "d": "x"})
    {'a': 1, 'd': 'x'}
    """
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    }


def ccd_id(camera: str, exposure: int, detector: int) -> int:
    """Return the observatory's number for a detector's image: the exposure's and three digits, of LATISS the exposure's.

    Examples
    --------
    >>> ccd_id("LSSTCam", 2026112000012, 94), ccd_id("LATISS", 2026112000012, 0)
    (2026112000012094, 2026112000012)
    """
    return exposure if camera == "LATISS" else exposure * 1000 + detector


def detector_values(result: DetectorResult, columns: ConsDBColumns) -> dict[str, Value]:
    """Return the row of a detector; empty if nothing of it was measured."""
    found = plain({column: result.metrics.get(metric) for column, metric in columns.detector.items()})
    if not found:
        return {}
    return {"ccdvisit_id": ccd_id(result.camera, result.exposure, result.detector), **found}


def _over_detectors(results: list[DetectorResult], metric: str) -> list[float]:
    return [
        float(value)
        for result in results
        if isinstance(value := result.metrics.get(metric), int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    ]


def visit_values(exposure: int, results: list[DetectorResult], columns: ConsDBColumns) -> dict[str, Value]:
    """Return the row of a visit: smallest, median and largest over its detectors."""
    row: dict[str, Value] = {}
    for column, metric in columns.visit.items():
        values = _over_detectors(results, metric)
        if values:
            is_count = column.startswith("n_")
            for name, value in (
                ("min", min(values)), ("median", statistics.median(values)), ("max", max(values)),
            ):  # fmt: skip
                row[f"{column}_{name}"] = round(value) if is_count else value
    for column, metric in columns.visit_total.items():
        values = _over_detectors(results, metric)
        if values:
            row[f"{column}_total"] = round(sum(values))
    return {"visit_id": exposure, "n_inputs": len(results), **row} if row else {}


def exposure_values(exposure: int, results: list[DetectorResult], columns: ConsDBColumns) -> dict[str, Value]:
    """Return the row of an exposure: median, mean and largest over its detectors."""
    row: dict[str, Value] = {}
    for column, metric in columns.exposure.items():
        values = _over_detectors(results, metric)
        if values:
            row[f"{column}_median"] = statistics.median(values)
            row[f"{column}_mean"] = statistics.fmean(values)
            row[f"{column}_max"] = max(values)
    return {"exposure_id": exposure, **row} if row else {}


class ConsDBClient:
    """A ConsDB server: what `Outbox` sends to.

    Parameters
    ----------
    url
        Up to and with ``/consdb``.
    token
        Sent as a bearer token; never logged.
    """

    name = "consdb"

    def __init__(self, url: str, *, token: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("publish_consdb", f"{url!r} is not http:// or https://")
        self._url = url.rstrip("/")
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = urllib3.PoolManager(
            maxsize=4, headers=headers, timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S), retries=False
        )
        self._columns: dict[str, tuple[float, frozenset[str] | None]] = {}
        self._dropped: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    @property
    def dropped(self) -> dict[str, list[str]]:
        """Columns that the server does not have, by table."""
        with self._lock:
            return {table: sorted(columns) for table, columns in self._dropped.items()}

    def send(self, parcel: Parcel, data: bytes) -> None:
        """Write the rows of a parcel; its key is ``instrument/table/day_obs/seq_num``.

        Raises
        ------
        StoreError
            Raised if the server does not answer, or not now.
        RefusedError
            Raised if it will not have some of the rows; the others were written.
        """
        instrument, table, day_obs, seq_num = parcel.key.split("/")
        refused = []
        for detector, values in json.loads(data).items():
            place = f"{instrument}/{table}/by_seq_num/{day_obs}/{seq_num}" + (f"/{detector}" if detector else "")
            try:
                self._insert(instrument, table, place, values)
            except RefusedError as error:
                refused.append(f"{detector or 'row'}: {error.message}")
        if refused:
            more = f" (and {len(refused) - 1} more rows)" if len(refused) > 1 else ""
            raise RefusedError(f"ConsDB refuses {parcel.key}, {refused[0]}{more}")

    def remove(self, key: str) -> None:
        """Rows are never removed."""

    def _insert(self, instrument: str, table: str, place: str, values: dict[str, Value]) -> None:
        known = self._columns_of(instrument, table)
        for _ in range(3):
            row = self._without_unknown(table, values, known)
            if not row:
                return
            status, answer = self._call("POST", f"insert/{place}?u=1", {"values": row})
            if status < 300:
                return
            extra = _extra_columns(answer) if status in {400, 404, 422} else set()
            if not extra & row.keys():
                raise RefusedError(f"{status} {json.dumps(answer)[:200]}")
            self._note_dropped(table, extra)
            known = (known or frozenset(row)) - extra
        raise RefusedError(f"the columns of {table} change from answer to answer")

    def _without_unknown(self, table: str, values: dict[str, Value], known: frozenset[str] | None) -> dict[str, Value]:
        if known is None:
            return values
        unknown = values.keys() - known
        if unknown:
            self._note_dropped(table, unknown)
        return {name: value for name, value in values.items() if name in known}

    def _note_dropped(self, table: str, columns: set[str]) -> None:
        with self._lock:
            before = self._dropped.setdefault(table, set())
            news = columns - before
            before |= columns
        if news:
            log.warning("ConsDB has no such columns: left out", table=table, columns=sorted(news))

    def _columns_of(self, instrument: str, table: str) -> frozenset[str] | None:
        """Return a table's columns; None if the server does not tell."""
        found = self._columns.get(table)
        if found is not None and time.monotonic() - found[0] < SCHEMA_S:
            return found[1]
        status, answer = self._call("GET", f"schema/{quote(instrument)}/{quote(table)}", None)
        columns = frozenset(answer) if status < 300 and isinstance(answer, dict) and answer else None
        self._columns[table] = (time.monotonic(), columns)
        return columns

    def _call(self, method: str, path: str, body: object | None) -> tuple[int, Any]:
        """Return status and answer; an answer that says to come again later raises."""
        try:
            response = self._http.request(method, f"{self._url}/{path}", body=dump(body) if body is not None else None)
        except urllib3.exceptions.HTTPError as error:
            raise StoreError(f"ConsDB does not answer: {type(error).__name__}") from error
        text = response.data[:100_000] if method == "GET" else response.data[:MAX_ANSWER]
        if response.status >= 500 or response.status in {401, 403, 408, 425, 429}:
            # A row whose exposure is not there yet fails as 500, too.
            raise StoreError(f"ConsDB answers {response.status}: {text[:200].decode(errors='replace')}")
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text.decode(errors="replace")[:200]


def _extra_columns(answer: Any) -> set[str]:
    """Return the columns that an answer calls extra."""
    if isinstance(answer, dict) and "extra columns" in str(answer.get("message", "")):
        return {part.strip() for part in str(answer.get("value", "")).split(",") if part.strip()}
    return set()


class ConsDBSink:
    """Turns summaries into parcels of rows.

    Parameters
    ----------
    instrument
        ConsDB's name of the camera.
    """

    name = ConsDBClient.name

    def __init__(
        self,
        client: ConsDBClient,
        results: ResultsStore,
        *,
        instrument: str,
        max_age_s: float = 86_400.0,
        metrics: PublishMetrics | None = None,
        **outbox: Any,
    ) -> None:
        self._client = client
        self._results = results
        self._instrument = instrument
        self._columns = load_columns()
        self.on_row: Callable[[SentRow], None] = lambda _row: None
        """Called with every version of a summary whose exposure row was sent."""

        self._outbox = Outbox(client, n_parallel=2, max_age_s=max_age_s, metrics=metrics, **outbox)

    async def run(self, stop: Any) -> None:
        """Send until told to stop."""
        await self._outbox.run(stop)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is sent; return whether it is."""
        return await self._outbox.drain(timeout_s)

    def put(self, summary: ExposureSummary) -> None:
        """Take in a summary; never waits."""
        if summary.pipeline.startswith("build_") or not summary.n_finished:
            return
        tables = {"exposure_quicklook": self._exposure_rows}
        if summary.image_type in SKY:
            tables |= {"visit1_quicklook": self._visit_rows, "ccdvisit1_quicklook": self._detector_rows}
        for table, rows in tables.items():
            self._outbox.offer(
                Parcel(
                    f"{self._instrument}/{table}/{summary.day_obs}/{summary.seq_num}",
                    lambda rows=rows: _body(rows(summary)),  # type: ignore[misc]  # a default binds it
                    version=summary.version,
                    rank=(-summary.exposure,),
                    content_type="application/json",
                    on_sent=self._teller(summary) if table == "exposure_quicklook" else (lambda: None),
                )
            )

    def _teller(self, summary: ExposureSummary) -> Callable[[], None]:
        begin_ms = _now_ms()

        def tell() -> None:
            self.on_row(
                SentRow(
                    destination=self.name,
                    exposure=summary.exposure,
                    pipeline=summary.pipeline,
                    version=summary.version,
                    begin_ms=begin_ms,
                    end_ms=_now_ms(),
                )
            )

        return tell

    def _read(self, summary: ExposureSummary) -> list[DetectorResult]:
        return self._results.results(
            summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline
        )

    def _exposure_rows(self, summary: ExposureSummary) -> dict[str, dict[str, Value]]:
        return {"": exposure_values(summary.exposure, self._read(summary), self._columns)}

    def _visit_rows(self, summary: ExposureSummary) -> dict[str, dict[str, Value]]:
        return {"": visit_values(summary.exposure, self._read(summary), self._columns)}

    def _detector_rows(self, summary: ExposureSummary) -> dict[str, dict[str, Value]]:
        return {str(result.detector): detector_values(result, self._columns) for result in self._read(summary)}

    @property
    def status(self) -> DestinationStatus:
        """How it stands."""
        notes = [f"{table} has no column {', '.join(names)}" for table, names in self._client.dropped.items()]
        return self._outbox.status.model_copy(update={"notes": notes})


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _body(rows: dict[str, dict[str, Value]]) -> bytes | None:
    found = {detector: values for detector, values in rows.items() if values}
    return dump(found) if found else None
