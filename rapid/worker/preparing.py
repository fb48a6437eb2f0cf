"""The payload child's part of a preload: load what an announced visit will need, one calib a step; let it go again."""

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from payloads.plugin import Payload
from rapid.calibs.store import PER_FILTER, CalibCache
from rapid.camera.store import load_camera
from rapid.errors import RapidError
from rapid.exposure.translate import band_of
from rapid.results.models import CalibRecord
from rapid.results.store import ResultsStore
from rapid.worker.messages import Preload

log = structlog.get_logger()

N_GROUPS = 32
"""Visits whose preloads are remembered; older ones stay loaded until others need the room."""

_Field = tuple[tuple[float, float], frozenset[str]]
"""Where on the sky a visit is announced, ICRS [deg], and in which bands."""


class Preloads:
    """What was loaded for which announced visit.

    Parameters
    ----------
    payloads
        Returns the payloads that were built: one with a method ``preload(sky, bands)`` loads what it needs itself, and
        with a method ``let_go(sky, bands)`` is told when the last visit of that field has expired or was canceled.
        A ``preload`` that has an argument ``angle_deg`` is told ``camera``, ``detector`` and ``angle_deg``, too.
    """

    def __init__(self, results: ResultsStore, cache: CalibCache, payloads: Callable[[], list[Payload]]) -> None:
        self._results = results
        self._cache = cache
        self._payloads = payloads
        self._loaded: dict[str, list[str]] = {}
        self._fields: dict[str, _Field] = {}

    def take(self, preload: Preload) -> bool:
        """Take one step; return whether there is another."""
        if preload.is_release:
            mine = self._loaded.pop(preload.group_id, [])
            others = {calib_id for ids in self._loaded.values() for calib_id in ids}
            self._cache.let_go(calib_id for calib_id in mine if calib_id not in others)
            field = self._fields.pop(preload.group_id, None)
            if field is not None and field not in self._fields.values():
                self._tell_payloads("let_go", field)
            log.info("preloaded calibs are let go", group_id=preload.group_id, n=len(mine))
            return False
        records = self._records(preload)
        if preload.step < len(records):
            self._prepare(preload, records[preload.step])
            return True
        self._prepare_payloads(preload, {record.physical_filter for record in records if record.physical_filter})
        return False

    def _prepare(self, preload: Preload, record: CalibRecord) -> None:
        loaded = self._loaded.setdefault(preload.group_id, [])
        while len(self._loaded) > N_GROUPS:
            self._loaded.pop(next(iter(self._loaded)))
        try:
            is_new = self._cache.prepare(record)
        except RapidError as error:
            log.warning("calib cannot be preloaded", calib_id=record.calib_id, error=error.message)
            return
        if is_new or any(record.calib_id in ids for ids in self._loaded.values()):
            loaded.append(record.calib_id)

    def _prepare_payloads(self, preload: Preload, filters: set[str]) -> None:
        if preload.sky is None:
            return
        names = {*filters, *preload.filters}
        bands = {band for name in names if (band := name if len(name) == 1 else band_of(name))}
        field = (preload.sky, frozenset(bands))
        self._fields[preload.group_id] = field
        while len(self._fields) > N_GROUPS:
            self._fields.pop(next(iter(self._fields)))
        self._tell_payloads("preload", field, preload)

    def _tell_payloads(self, name: str, field: "_Field", preload: Preload | None = None) -> None:
        """Call a method of those payloads that have it."""
        for payload in self._payloads():
            method: Any = getattr(payload, name, None)
            if method is None:
                continue
            try:
                method(*field, **_place_of(preload, method))
            except Exception as error:  # noqa: BLE001 - of somebody else's; the exposure will do without
                log.warning("payload cannot preload", method=name, payload=type(payload).__name__, error=repr(error))

    def _records(self, preload: Preload) -> list[CalibRecord]:
        """Return the calib of each kind that the detector would get, and of each announced filter."""
        at = preload.begin or datetime.now(UTC).replace(tzinfo=None)
        chosen: dict[tuple[str, str], CalibRecord] = {}
        for record in self._results.calibs(preload.camera, detector=preload.detector, at=at):
            name = record.physical_filter or ""
            if record.kind in PER_FILTER and preload.filters and not {name, band_of(name)} & set(preload.filters):
                continue
            chosen.setdefault((record.kind, name), record)
        return [chosen[key] for key in sorted(chosen)]


def _place_of(preload: Preload | None, method: Callable[..., object]) -> dict[str, Any]:
    """Return which detector is made ready, and how it lies on the sky, for a method that asks for it."""
    if preload is None or "angle_deg" not in inspect.signature(method).parameters:
        return {}
    camera = load_camera(preload.camera)
    return {"camera": camera, "detector": camera.by_id.get(preload.detector), "angle_deg": preload.angle_deg}
