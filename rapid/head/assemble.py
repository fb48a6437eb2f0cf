"""Collect the raws of an exposure as they come in.

Remembers, in bounded memory, what was posted; the board and the results store hold the truth.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from rapid.arrival.models import RawHeader
from rapid.exclusions.decide import Excluded
from rapid.exposure.models import ExposureInfo
from rapid.head.choice import Choice

REMEMBERED = 400
"""Exposures kept in memory, some 70 kB each: four hours' worth, and more than the longest sequence of flats."""

WHOLE = 40
"""Exposures whose raws are kept with their headers, 10 kB each: of older ones everything is posted, and what comes late is
posted by itself."""


@dataclass
class OpenExposure:
    """An exposure whose raws come in."""

    exposure_id: int
    first_s: float = field(default_factory=time.monotonic)
    """When it was first heard of, this process's monotonic clock [s]."""
    raws: dict[tuple[int, bool], RawHeader] = field(default_factory=dict)
    """By detector, and whether it is a guider; of an old exposure only what came since it was let go."""

    first: RawHeader | None = None
    """The raw that came first."""

    uris: dict[tuple[int, bool], str] = field(default_factory=dict)
    """Where every raw is that came."""

    read_out: frozenset[str] | None = None
    quarantined: dict[int, str] = field(default_factory=dict)
    """Detectors whose raw could not be read, with the reason."""
    posted: dict[str, frozenset[int]] = field(default_factory=dict)
    """By pipeline, the detectors expected by the batch on the board."""
    finished: dict[str, frozenset[int]] | None = None
    """By pipeline, the detectors with stored results when it was first seen (I2)."""

    choice: Choice | None = None
    """What is done with it: decided once (I9)."""
    excluded: Excluded = field(default_factory=Excluded)
    """What is switched off in it: decided with the choice."""

    @property
    def info(self) -> ExposureInfo | None:
        """Facts from the first raw, None if only the list of sensors came so far."""
        return self.first.info if self.first else None


class Exposures:
    """The exposures seen lately, newest last."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, OpenExposure] = OrderedDict()
        self._whole: OrderedDict[int, None] = OrderedDict()

    def get(self, exposure_id: int) -> OpenExposure:
        """Return an exposure, new if it was not seen before."""
        exposure = self._open.get(exposure_id)
        if exposure is None:
            exposure = self._open[exposure_id] = OpenExposure(exposure_id)
            while len(self._open) > REMEMBERED:
                self._open.popitem(last=False)
        return exposure

    def find(self, exposure_id: int) -> OpenExposure | None:
        """Return an exposure that was seen, or None."""
        return self._open.get(exposure_id)

    def all(self) -> list[OpenExposure]:
        """Return all exposures that were seen."""
        return list(self._open.values())

    def add(self, raw: RawHeader) -> OpenExposure:
        """Add a raw to its exposure."""
        exposure = self.get(raw.info.exposure_id)
        exposure.quarantined.pop(raw.info.detector, None)
        place = (raw.info.detector, raw.info.is_guider)
        exposure.raws[place] = raw
        exposure.uris[place] = raw.uri
        exposure.first = exposure.first or raw
        self._whole[exposure.exposure_id] = None
        self._whole.move_to_end(exposure.exposure_id)
        while len(self._whole) > WHOLE:
            old = self._open.get(self._whole.popitem(last=False)[0])
            if old is not None:
                old.raws.clear()
        return exposure
