"""Decide what the head node posts: pure, no I/O, no clock.

`plan_batches` turns an exposure's arrivals into batches; `calib_groups` and `choose_build` say when a
calibration sequence is whole and which calib to build next.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from rapid.arrival.models import RawHeader
from rapid.camera.models import Camera, Purpose
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.head.models import BatchPlan, CalibGroup
from rapid.pipeline.models import PipelineBook
from rapid.pipeline.store import choose_pipelines, load_pipeline
from rapid.results.models import DetectorState, ExposureSummary

NEEDED: dict[str, frozenset[str]] = {
    "bias": frozenset(),
    "dark": frozenset({"bias"}),
    "linearity": frozenset({"bias", "dark"}),
    "ptc": frozenset({"bias", "dark", "linearity"}),
    "crosstalk": frozenset({"bias", "dark", "linearity", "ptc"}),
    "flat": frozenset({"bias", "dark", "linearity", "ptc", "crosstalk"}),
    "defects": frozenset({"bias", "dark", "flat"}),
}
"""What a calib is built with, by kind."""

SEQUENCE_TYPES = frozenset({ImageType.BIAS.value, ImageType.DARK.value, ImageType.FLAT.value, ImageType.SPOT.value})
"""Image types that calibs are built of."""

MIN_RAMP = 4
"""Exposure times, with two flats each, that make a ramp for linearity and gains."""

WAVEFRONT = "wavefront sensors"
"""Names the pipeline of wavefront sensors among those by image type."""

MIN_TO_BUILD = 2
"""One exposure is no sequence: nothing could be clipped or compared."""


def expected_detectors(
    camera: Camera, *, read_out: frozenset[str] | None = None, selected: frozenset[int] | None = None
) -> frozenset[int]:
    """Return the science detectors that an exposure should give results for.

    Parameters
    ----------
    read_out
        Names of the detectors that were read out, if the camera said so; None if it did not.
    selected
        Detectors that the control state selects; None for all.
    """
    expected = camera.science_ids
    if read_out is not None:
        expected &= {camera.by_name[name].id for name in read_out if name in camera.by_name}
    if selected is not None:
        expected &= selected
    return frozenset(expected)


def plan_batches(
    arrived: Collection[RawHeader],
    *,
    camera: Camera,
    book: PipelineBook,
    expected: frozenset[int],
    later: Mapping[int, str] | None = None,
    excluded: Mapping[int, str] | None = None,
    pipelines: Mapping[str, str] | None = None,
) -> list[BatchPlan]:
    """Return the batches of one exposure.

    Science detectors make one batch per pipeline (the chosen one and those beside it), with the full expected set from
    the start, so that a gather knows what is missing. Wavefront sensors, guiders and guider files make batches of their own
    that expect what has arrived: nobody announces them.

    Parameters
    ----------
    arrived
        Raws of one exposure, at least one.
    expected
        Science detectors that are wanted, from `expected_detectors`.
    later
        Science detectors that are left for the backlog, with the reason.
    excluded
        Detectors that are switched off, with the reason.
    pipelines
        Pipeline by image type, where the operator wants another than the book chooses for science detectors; under
        `WAVEFRONT` that of wavefront sensors, in place of what runs beside their quick look.
    """
    later, excluded, pipelines = later or {}, excluded or {}, pipelines or {}
    grouped: dict[tuple[str, bool], list[RawHeader]] = {}
    for raw in arrived:
        detector = camera.by_id[raw.info.detector]
        is_science = detector.purpose is Purpose.SCIENCE and not raw.info.is_guider
        chosen, *beside = choose_pipelines(raw.info, dict(raw.header), book, purpose=detector.purpose)
        names = [chosen.name, *(pipeline.name for pipeline in beside)]
        if is_science:
            names[0] = pipelines.get(raw.info.image_type.value, names[0])
        elif detector.purpose is Purpose.WAVEFRONT and WAVEFRONT in pipelines:
            names = [*names[:1], pipelines[WAVEFRONT]] if beside else [pipelines[WAVEFRONT]]
        for name in dict.fromkeys(names):
            grouped.setdefault((name, is_science), []).append(raw)
    plans = []
    for (name, is_science), raws in grouped.items():
        pipeline = load_pipeline(name, book)
        uris = {raw.info.detector: raw.uri for raw in raws}
        wanted = expected if is_science else frozenset(uris)
        uninvited = dict.fromkeys(frozenset(uris) - wanted, "arrived though it was not announced")
        left = {detector: why for detector, why in later.items() if detector in wanted} if is_science else {}
        off = {detector: why for detector, why in excluded.items() if detector in wanted or detector in uninvited}
        plans.append(
            BatchPlan(
                pipeline=name,
                pool=pipeline.pool,
                time_limit_ms=int(pipeline.time_limit_s * 1000),
                expected=wanted | uninvited.keys(),
                raws=uris,
                superseded={**uninvited, **left},
                excluded=off,
            )
        )
    return plans


def _sequences(
    summaries: Iterable[ExposureSummary],
) -> dict[tuple[str, str, str | None], list[ExposureSummary]]:
    """Return the calibration exposures of a night by type, GROUPID and filter, in order, each once."""
    found: dict[tuple[str, str, str | None], dict[int, ExposureSummary]] = {}
    for summary in sorted(summaries, key=lambda s: s.exposure):
        kind = summary.image_type
        wanted = {"quicklook"} if kind == ImageType.SPOT.value else {kind}
        if kind not in SEQUENCE_TYPES or summary.pipeline not in wanted:
            continue
        group_id = str(summary.info.get("group_id") or "")
        if not group_id:
            continue
        # Each image of a sequence may carry a group of its own; its size then says that it stands alone.
        filter_name = summary.info.get("physical_filter") if kind in {"flat", "spot"} else None
        found.setdefault((kind, group_id, filter_name), {})[summary.exposure] = summary
    return {key: list(group.values()) for key, group in found.items()}


def _is_ramp(found: Sequence[ExposureSummary]) -> bool:
    """Whether flats are a ramp of light, in pairs: several exposure times, two of most of them."""
    times = Counter(round(float(s.info.get("exposure_time_s") or 0.0), 3) for s in found)
    return sum(n >= MIN_TO_BUILD for n in times.values()) >= MIN_RAMP and len(times) >= MIN_RAMP


def calib_groups(summaries: Iterable[ExposureSummary]) -> list[CalibGroup]:
    """Return what can be built of a night's calibration sequences, whole or not.

    A sequence is a GROUPID. It is whole when as many exposures as its MAXINDEX says have summaries that tell the end of
    every detector: one raw that cannot be read leaves a calib of all others to be built. Of flats at
    several exposure times, in pairs, linearity and gains are built, and no flat; of spots crosstalk; of the newest whole
    darks and the first whole flats after them the defects.

    Parameters
    ----------
    summaries
        Newest summaries of the night's calibration exposures, in any order.
    """
    groups: list[CalibGroup] = []
    for (image_type, group_id, filter_name), found in _sequences(summaries).items():
        announced = max((int(s.info.get("group_size") or 0) for s in found), default=0)
        is_whole = announced >= MIN_TO_BUILD and len(found) >= announced and all(map(_has_ended, found))
        kinds: tuple[str, ...] = (image_type,)
        if image_type == ImageType.SPOT.value:
            kinds = ("crosstalk",)
        elif image_type == ImageType.FLAT.value and _is_ramp(found):
            kinds = ("linearity", "ptc")
        groups += [
            CalibGroup(
                image_type=image_type,
                group_id=group_id,
                physical_filter=filter_name,
                members=tuple(s.exposure for s in found),
                is_whole=is_whole,
                kind=kind,
            )
            for kind in kinds
        ]
    darks = [group for group in groups if group.kind == "dark" and group.is_whole]
    if darks:
        dark = max(darks, key=lambda group: group.members[-1])
        flats = [g for g in groups if g.kind == "flat" and g.is_whole and g.members[0] > dark.members[-1]]
        if flats:
            flat = min(flats, key=lambda group: group.members[-1])
            groups.append(
                CalibGroup(
                    image_type=flat.image_type,
                    group_id=flat.group_id,
                    physical_filter=flat.physical_filter,
                    members=dark.members + flat.members,
                    is_whole=True,
                    kind="defects",
                )
            )
    return groups


def _has_ended(summary: ExposureSummary) -> bool:
    """Whether nothing is to come: each detector has its result, or is known to have none."""
    states = [status.state for status in summary.detectors.values()]
    has_ended = all(state is DetectorState.FINISHED or state.is_without_result for state in states)
    return summary.is_complete or (DetectorState.FINISHED in states and has_ended)


def choose_builds(
    groups: Iterable[CalibGroup], built: Mapping[tuple[str, int], bool], *, ungathered: Collection[int] = ()
) -> list[CalibGroup]:
    """Return what to build now.

    Parameters
    ----------
    groups
        From `calib_groups`.
    built
        Kind and last exposure of every build that was posted, and whether it is done.
    ungathered
        Calibration exposures that were posted and have no summary yet.

    Notes
    -----
    A dark waits for a bias build in progress, a flat for bias and dark, and so on (`NEEDED`): else it would be made
    without them. Newest first, a flat may be whole before the biases are looked at; so a sequence also waits while an
    earlier calibration exposure is not gathered. That ends by itself: every exposure is gathered at its deadline at the
    latest.
    """
    whole = [group for group in groups if group.is_whole]
    due = []
    for group in whole:
        if group.key in built:
            continue
        if any(exposure_id < group.members[0] for exposure_id in ungathered):
            continue
        blocked = any(
            not built.get(other.key, False)
            for other in whole
            if other.kind in NEEDED[group.kind] and other.members[-1] <= group.members[-1]
        )
        if not blocked:
            due.append(group)
    return due


def info_facts(info: ExposureInfo) -> dict[str, object]:
    """Return an exposure's facts for gather and display: those of the detector left out."""
    return info.model_dump(mode="json", exclude={"detector", "detector_name", "is_guider", "detector_serial"})
