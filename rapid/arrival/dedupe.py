"""Tell a raw that came again from a new one, and from one that replaces an earlier one.

Bounded memory of one process: the board and the results store forget nothing, so the worst that
forgetting here does is to offer them a raw they know.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

REMEMBERED = 40_000
"""About 200 exposures of 205 detectors: what replaces a raw comes soon, and a copy of an older one the board knows."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which raw: one detector of one exposure, imaging or guiding."""

    camera: str
    exposure_id: int
    detector: int
    is_guider: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """Where a raw's content is, and what tells it from other content.

    Attributes
    ----------
    mark
        Modification time of a file, ETag of an object: changes with the content.
    """

    uri: str
    size_bytes: int
    mark: str


class Novelty(StrEnum):
    """What a raw is to those that came before."""

    NEW = "new"
    DUPLICATE = "duplicate"
    REPLACEMENT = "replacement"


class Deduper:
    """Remembers the raws that came lately."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._seen: OrderedDict[Identity, Content] = OrderedDict()

    def take(self, identity: Identity, content: Content) -> tuple[Novelty, Content | None]:
        """Return what a raw is to the earlier ones, and the one it replaces; remember it.

        The same place with another size or mark is a replacement; another place with the same size is a
        copy of what we have (a hard link, a second name); with another size it replaces the earlier one:
        the newer arrival wins.
        """
        before = self._seen.get(identity)
        self._seen[identity] = content
        self._seen.move_to_end(identity)
        while len(self._seen) > self._remembered:
            self._seen.popitem(last=False)
        if before is None:
            return Novelty.NEW, None
        if before.size_bytes == content.size_bytes and (before.uri != content.uri or before.mark == content.mark):
            self._seen[identity] = before
            return Novelty.DUPLICATE, before
        return Novelty.REPLACEMENT, before
