"""Which place in the arrays belongs to which amp."""

from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from rapid.results.trend_schema import trend_channel

_T = trend_channel.c


@dataclass(frozen=True)
class Channel:
    """A place in the arrays: an amp, or with an empty name the detector as a whole."""

    position: int
    detector: int
    detector_name: str
    amp: str


@dataclass
class Channels:
    """All places of a camera, in the order of the arrays."""

    rows: list[Channel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._place = {(row.detector, row.amp): row.position for row in self.rows}

    def __len__(self) -> int:
        return len(self.rows)

    def of_detector(self, detector: int) -> list[Channel]:
        """Return a detector's places, its own number first, then its amps by name."""
        return sorted((row for row in self.rows if row.detector == detector), key=lambda row: row.amp)

    def position(self, detector: int, amp: str) -> int | None:
        """Return a place, or None if nothing of it was ever stored."""
        return self._place.get((detector, amp))

    def add(self, detector: int, detector_name: str, amp: str) -> Channel:
        """Give the next place to an amp."""
        channel = Channel(len(self.rows), detector, detector_name, amp)
        self.rows.append(channel)
        self._place[detector, amp] = channel.position
        return channel

    @property
    def detectors(self) -> NDArray[np.int64]:
        """Detector of each place, shape (n_channels,)."""
        return np.array([row.detector for row in self.rows], np.int64)

    @property
    def is_amp(self) -> NDArray[np.bool_]:
        """Whether each place is an amp's, shape (n_channels,)."""
        return np.array([bool(row.amp) for row in self.rows], bool)


def load_channels(connection: sa.Connection, camera: str) -> Channels:
    """Read a camera's places."""
    rows = connection.execute(sa.select(trend_channel).where(_T.camera == camera).order_by(_T.position))
    return Channels([Channel(row.position, row.detector, row.detector_name, row.amp) for row in rows])


def save_channels(connection: sa.Connection, camera: str, channels: Channels, *, since: int) -> None:
    """Write the places given since there were ``since`` of them."""
    new = [
        {
            "camera": camera,
            "position": row.position,
            "detector": row.detector,
            "detector_name": row.detector_name,
            "amp": row.amp,
        }
        for row in channels.rows[since:]
    ]
    if new:
        connection.execute(trend_channel.insert(), new)
