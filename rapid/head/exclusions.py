"""Ask what is switched off in an exposure: once, when it is first dispatched, by the time it began."""

import asyncio
from datetime import UTC, datetime

from rapid.camera.models import Camera
from rapid.exclusions.decide import Excluded, begin_utc, choose_excluded
from rapid.exclusions.store import ExclusionStore
from rapid.results.store import ResultsStore


class Exclusions:
    """What is switched off, as the head asks for it.

    Parameters
    ----------
    camera
        The camera.
    results
        The results store that holds the exclusions.
    """

    def __init__(self, camera: Camera, results: ResultsStore) -> None:
        self._camera = camera
        self._store = ExclusionStore(results.engine)

    async def of(self, begin_tai: datetime | None) -> Excluded:
        """Return what is off in an exposure that began at a time [TAI, as in its header].

        Raises
        ------
        StoreError
            Raised if the results store does not answer.
        """
        begin = begin_utc(begin_tai, now=datetime.now(UTC))
        known = await asyncio.to_thread(self._store.active, self._camera.name, begin)
        return choose_excluded(known, self._camera, begin)
