"""Make a recording of a planned night: as if it had been taken and recorded, with nothing run."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from rapid.camera.models import Camera
from rapid.camera.store import load_camera, portable_definition
from rapid.exposure.values import leap_seconds
from replay.events import NightEvent, RawsEvent, SidecarEvent
from replay.headers import NightHeaders, RawFacts
from replay.plan import NightPlan, PlannedExposure
from replay.recording import Manifest, Recording
from replay.simulate import primary_header

READOUT_S = 2.0
"""From the end of the exposure to the first raw; the rest follow within `SPREAD_S`."""

SPREAD_S = 1.0
"""Between the first and the last raw of an exposure: they are written side by side."""


def recording_of_plan(
    plan: NightPlan, *, title: str = "", story: str = "", extra: Iterable[NightEvent] = ()
) -> Recording:
    """Return the recording of a planned night.

    Parameters
    ----------
    extra
        More events: control changes, requests, faults.
    """
    exposures = plan.exposures()
    camera = load_camera(plan.camera)
    epoch = exposures[0].begin
    events: list[NightEvent] = []
    for exposure in exposures:
        events += arrival_events(exposure, camera, epoch)
    events = sorted([*events, *extra], key=lambda event: event.at_s)
    return Recording(
        manifest=Manifest(
            camera=camera.name,
            camera_yaml=portable_definition(plan.camera),
            title=title,
            story=story,
            began_at=utc_of(epoch),
            duration_s=round(events[-1].at_s + SPREAD_S, 3),
            seed=plan.seed,
        ),
        events=events,
        headers=NightHeaders.of(header_facts(exposures, camera)),
        exposures={exposure.exposure_id: exposure for exposure in exposures},
    )


def arrival_events(exposure: PlannedExposure, camera: Camera, epoch: datetime) -> tuple[SidecarEvent, RawsEvent]:
    """Return how an exposure arrives: the list of its sensors, then its raws."""
    at_s = round((exposure.begin - epoch).total_seconds() + exposure.exposure_time_s + READOUT_S, 3)
    names = tuple(camera.by_id[number].name for number in exposure.detectors)
    step_ms = SPREAD_S * 1000 / len(names)
    return (
        SidecarEvent(at_s=at_s, exposure=exposure.exposure_id, detectors=names),
        RawsEvent(
            at_s=at_s,
            exposure=exposure.exposure_id,
            detectors=names,
            after_ms=tuple(round(place * step_ms) for place in range(len(names))),
        ),
    )


def header_facts(exposures: Iterable[PlannedExposure], camera: Camera) -> Iterator[RawFacts]:
    """Yield the header of every raw of some exposures."""
    for exposure in exposures:
        for number in exposure.detectors:
            detector = camera.by_id[number]
            yield RawFacts(
                exposure.exposure_id, exposure.obs_id, detector.name, primary_header(exposure, camera, detector)
            )


def utc_of(tai: datetime) -> datetime:
    """Return a TAI time of a header as UTC."""
    return (tai - timedelta(seconds=leap_seconds(tai))).replace(tzinfo=UTC)
