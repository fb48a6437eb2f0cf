"""The exposures that a calib is built from: what they are, which belong together, one calibrated at a time."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from payloads.combine.payload import is_calibrated_alike
from payloads.isr.payload import Isr
from payloads.plugin import EXCLUDED, CalibPlane, Calibs, Frame
from rapid.errors import PayloadError
from rapid.exposure.models import ExposureInfo, ImageType

SAME_TIME = 1e-3
"""Exposure times that differ by less, as a part of them, are meant to be alike."""


@dataclass(frozen=True)
class Member:
    """One exposure of a sequence, and how to load it."""

    info: ExposureInfo
    load: Callable[[], Frame]


class Without:
    """Certified calibs, but for some kinds."""

    def __init__(self, calibs: Calibs, *kinds: str) -> None:
        self._calibs = calibs
        self._kinds = kinds

    def get(self, kind: str) -> CalibPlane | None:
        """Return the calib of a kind; None for those that are left out."""
        return None if kind in self._kinds else self._calibs.get(kind)


class With:
    """Certified calibs, with one in the place of its kind."""

    def __init__(self, calibs: Calibs, kind: str, plane: CalibPlane) -> None:
        self._calibs = calibs
        self._kind = kind
        self._plane = plane

    def get(self, kind: str) -> CalibPlane | None:
        """Return the one that was given for its kind, the certified one for any other."""
        return self._plane if kind == self._kind else self._calibs.get(kind)


def members_of(frame: Frame, *, what: str, kinds: Collection[ImageType], least: int) -> list[Member]:
    """Return the exposures to build from.

    Parameters
    ----------
    what
        What is built, for messages.
    kinds
        Image types that can be used.
    least
        Fewest exposures.

    Raises
    ------
    PayloadError
        Raised if there are too few, or one is of another detector or kind.
    """
    found = []
    for load in frame.inputs:
        info = load().info
        if info.is_guider or (info.camera, info.detector) != (frame.info.camera, frame.info.detector):
            raise PayloadError(
                f"exposure {info.exposure_id} is of {info.camera} {info.detector_name}, "
                f"not {frame.info.camera} {frame.info.detector_name}",
                exposure=info.exposure_id,
            )
        if info.image_type not in kinds:
            named = " or ".join(sorted(kind.value for kind in kinds))
            raise PayloadError(
                f"exposure {info.exposure_id} is a {info.image_type.value}, not a {named}: no {what} is built of it",
                exposure=info.exposure_id,
            )
        found.append(Member(info, load))
    if len(found) < least:
        raise PayloadError(f"{len(found)} exposures to build {what} from; {least} are needed", n_inputs=len(found))
    return found


def pairs_of(members: list[Member]) -> list[tuple[Member, Member]]:
    """Return the flats that belong together: the next ones of equal exposure time and filter, in order."""
    waiting: list[Member] = []
    pairs = []
    for member in members:
        time_s = member.info.exposure_time_s or 0.0
        for place, other in enumerate(waiting):
            other_s = other.info.exposure_time_s or 0.0
            is_same = abs(time_s - other_s) <= SAME_TIME * max(time_s, other_s)
            if is_same and member.info.physical_filter == other.info.physical_filter:
                pairs.append((waiting.pop(place), member))
                break
        else:
            waiting.append(member)
    return pairs


def calibrated(frame: Frame, isr: Isr, members: list[Member]) -> Iterator[Frame]:
    """Yield each exposure, calibrated; take over from the first what the build's frame says of its inputs.

    Raises
    ------
    PayloadError
        Raised if one would be calibrated unlike the first, or is of another size.
    """
    for place, member in enumerate(members):
        part = member.load()
        isr.run(part)
        if part.image is None or part.mask is None:
            raise PayloadError(f"exposure {part.info.exposure_id} has no image", exposure=part.info.exposure_id)
        is_first = place == 0 and not frame.applied
        if is_first:
            take_over(frame, part)
        elif not is_calibrated_alike(part, frame):
            raise PayloadError(
                f"exposure {part.info.exposure_id} would be calibrated unlike the others "
                f"({part.calib_ids}, not {frame.calib_ids})",
                exposure=part.info.exposure_id,
            )
        off = {amp: str(row[EXCLUDED]) for amp, row in part.amps.items() if row.get(EXCLUDED)}
        known = off if is_first else frame.excluded_amps
        frame.excluded_amps = {amp: why for amp, why in known.items() if amp in off}
        yield part


def take_over(frame: Frame, part: Frame) -> None:
    """Say in the build's frame how its inputs were calibrated."""
    frame.detector = part.detector
    frame.applied = list(part.applied)
    frame.calib_ids = dict(part.calib_ids)
