"""What the head knows of exposures, for requests: those it has seen arrive, else what the results store has of them."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rapid.arrival.models import RawHeader
from rapid.camera.models import Camera
from rapid.dispatch.commands import order_of
from rapid.head.assemble import Exposures, OpenExposure
from rapid.head.decide import info_facts
from rapid.requests.decide import ExposureFacts
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

NIGHTS_SEARCHED = 3
"""Nights of the results store in which a group is looked for; newer exposures the head has seen itself."""


@dataclass(frozen=True)
class KnownExposure:
    """An exposure that is there.

    Attributes
    ----------
    info
        Its facts, as a batch carries them.
    header
        Primary header of one of its raws; None if it is known from results alone.
    raws, guiders
        URI of the raw by detector: of images, and of guider files.
    read_out
        Names of the detectors that were read out; None if nobody said.
    quarantined
        Detectors whose raw cannot be read, with the reason.
    is_live
        Whether raws of it may still come in.
    """

    exposure_id: int
    image_type: str
    info: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] | None = None
    raws: Mapping[int, str] = field(default_factory=dict)
    guiders: Mapping[int, str] = field(default_factory=dict)
    read_out: frozenset[str] | None = None
    quarantined: Mapping[int, str] = field(default_factory=dict)
    is_live: bool = False

    @property
    def facts(self) -> ExposureFacts:
        """What decides whether it belongs to a request."""
        return ExposureFacts(
            self.exposure_id,
            self.image_type,
            str(self.info["group_id"]) if self.info.get("group_id") is not None else None,
            _int_or_none(self.info.get("group_index")),
            _int_or_none(self.info.get("group_size")),
        )


class KnownExposures:
    """Finds exposures.

    Parameters
    ----------
    exposures
        What the head has seen arrive under this lead.
    """

    def __init__(self, camera: Camera, results: ResultsStore, exposures: Exposures) -> None:
        self._camera = camera
        self._results = results
        self._exposures = exposures
        self._newest_stored: int | None = None

    async def look_up_newest(self) -> None:
        """Ask the results store once for its newest exposure."""
        stored = await asyncio.to_thread(lambda: self._results.summaries(self._camera.name, limit=1, run=None))
        self._newest_stored = order_of(stored[0].exposure) if stored else None

    @property
    def newest(self) -> int | None:
        """Order of the newest exposure that is known; None if there is none."""
        seen = [order_of(e.exposure_id) for e in self._exposures.all() if e.first is not None]
        return max([*seen, *([self._newest_stored] if self._newest_stored is not None else [])], default=None)

    def live(self, exposure_id: int) -> KnownExposure | None:
        """Return an exposure whose raws were seen under this lead, or None."""
        exposure = self._exposures.find(exposure_id)
        return _from_arrivals(exposure, exposure.first) if exposure is not None and exposure.first is not None else None

    def age_s(self, exposure_id: int) -> float:
        """Return how long ago an exposure was first heard of [s]; infinite for one that was not."""
        exposure = self._exposures.find(exposure_id)
        return float("inf") if exposure is None else time.monotonic() - exposure.first_s

    def live_facts(self) -> dict[int, ExposureFacts]:
        """Return the facts of all exposures seen under this lead."""
        found = {}
        for exposure in self._exposures.all():
            info = exposure.info
            if info is not None:
                found[exposure.exposure_id] = ExposureFacts(
                    exposure.exposure_id, info.image_type.value, info.group_id, info.group_index, info.group_size
                )
        return found

    async def find(self, exposure_ids: Iterable[int]) -> dict[int, KnownExposure]:
        """Return those of some exposures that are there."""
        found: dict[int, KnownExposure] = {}
        missing: list[int] = []
        for exposure_id in exposure_ids:
            known = self.live(exposure_id)
            if known is not None:
                found[exposure_id] = known
            else:
                missing.append(exposure_id)
        if missing:
            found |= await asyncio.to_thread(self._find_stored, missing)
        return found

    async def group_facts(self, group_id: str) -> dict[int, ExposureFacts]:
        """Return the facts of the stored exposures of a group, of the newest nights."""

        def search() -> dict[int, ExposureFacts]:
            found: dict[int, ExposureFacts] = {}
            for day_obs, _ in self._results.nights(self._camera.name)[:NIGHTS_SEARCHED]:
                for summary in self._results.summaries(self._camera.name, day_obs=day_obs, limit=10_000):
                    if str(summary.info.get("group_id")) == group_id:
                        found[summary.exposure] = _from_summary(summary).facts
            return found

        return await asyncio.to_thread(search)

    def _find_stored(self, exposure_ids: list[int]) -> dict[int, KnownExposure]:
        found: dict[int, KnownExposure] = {}
        for exposure_id in exposure_ids:
            # One at a time: a request for a whole night asks for a few hundred.
            results = self._results.results(exposure_id, camera=self._camera.name)
            if not results:
                continue
            summaries = self._results.summary_versions(self._camera.name, exposure_id)
            info = next((summary.info for summary in summaries if summary.info), {})
            found[exposure_id] = KnownExposure(
                exposure_id,
                results[0].image_type,
                info=info,
                raws={result.detector: result.provenance.raw for result in results if result.pipeline != "guider"},
                guiders={result.detector: result.provenance.raw for result in results if result.pipeline == "guider"},
            )
        return found


def _from_arrivals(exposure: OpenExposure, first: RawHeader) -> KnownExposure:
    return KnownExposure(
        exposure.exposure_id,
        first.info.image_type.value,
        info=info_facts(first.info),
        header=first.header,
        raws={detector: uri for (detector, is_guider), uri in exposure.uris.items() if not is_guider},
        guiders={detector: uri for (detector, is_guider), uri in exposure.uris.items() if is_guider},
        read_out=exposure.read_out,
        quarantined=dict(exposure.quarantined),
        is_live=True,
    )


def _from_summary(summary: ExposureSummary) -> KnownExposure:
    return KnownExposure(summary.exposure, summary.image_type, info=summary.info)


def _int_or_none(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
