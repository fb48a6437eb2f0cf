"""`rapid calib trend`: numbers of the calibrations over months, their drift, and alarms."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.exclude import whoami
from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data
from rapid.cli.undo import calib_group
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from rapid.camera.models import Camera
    from rapid.trends.models import Alarm, SeriesFacts, SeriesHistory

ALARMS_OPEN = 3
"""Exit status of `--alarms` if any is open: a script can ask."""

_AGO = re.compile(r"^(\d{1,5})([dwmy])$")
_DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}


def day_of(text: str, option: str) -> int:
    """Return an observing day from 20261120, 2026-11-20, or some time ago (30d, 6m, 1y).

    Raises
    ------
    ConfigurationError
        Raised, naming the option, for anything else.
    """
    ago = _AGO.match(text)
    try:
        if ago:
            day = datetime.now(UTC).date() - timedelta(days=int(ago[1]) * _DAYS[ago[2]])
        elif re.fullmatch(r"\d{8}", text):
            day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
        else:
            day = date.fromisoformat(text)
        if day.year < 1990:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(option, f"{text!r} is no day: give 20261120, 2026-11-20, 30d, 6m or 1y") from error
    return day.year * 10_000 + day.month * 100 + day.day


def _open(camera: str | None, data: Any) -> "tuple[Camera, sa.Engine]":
    from rapid.results.store import open_results
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, data=data)
    known = adopt_camera(settings.camera)
    if "://" not in settings.results and not Path(settings.results).exists():
        raise ConfigurationError(
            "data", f"there is no results store at {settings.results}; give --data, or RAPID_RESULTS_URL"
        )
    return known, open_results(settings.results).engine


def detector_of(camera: "Camera", text: str) -> int:
    """Return a detector's number from its number or name; raises `NotFoundError`."""
    for detector in camera.detectors:
        if text in {detector.name, str(detector.id)}:
            return detector.id
    raise ConfigurationError("--detector", f"{camera.name} has no detector {text}")


def _alarm_lines(alarms: "list[Alarm]") -> list[str]:
    lines = []
    for one in alarms:
        lines.append(f"{one.id:>5}  {one.state.value:12}  {one.significance:6.1f} sigma  {one.text}")
        if one.acknowledged_by:
            lines.append(f"{'':7}acknowledged by {one.acknowledged_by}: {one.acknowledge_reason}")
    return lines


def _history_lines(histories: "list[SeriesHistory]") -> list[str]:
    lines = []
    for one in histories:
        unit = f" [{one.unit}]" if one.unit else ""
        lines.append(
            f"{one.detector_name}: {one.key.title}{unit}, {len(one.exposures)} exposures, {one.days[0]} to {one.days[-1]}"
        )
        for amp, values in sorted(one.amps.items()):
            numbers = sorted(v for v in values if v is not None)
            newest = next((v for v in reversed(values) if v is not None), None)
            middle = numbers[len(numbers) // 2]
            lines.append(
                f"  {amp or 'detector':8}  n {len(numbers):5}  median {middle:<12.6g}  from {numbers[0]:<12.6g}"
                f" to {numbers[-1]:<12.6g}  newest {newest:.6g}"
            )
    return lines


def trend(
    metric: Annotated[str, typer.Argument(help="Number, e.g. mean_e; all there are if left out.")] = "",
    detector: Annotated[str, typer.Option("--detector", "-d", help="Detector, R22_S11 or 94.")] = "",
    amp: Annotated[str | None, typer.Option(help="Only this amp, e.g. C00.")] = None,
    image_type: Annotated[str | None, typer.Option(help="Only of bias, dark or flat.")] = None,
    condition: Annotated[str | None, typer.Option(help="Only this filter and exposure time, e.g. 'r_57 4 s'.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Only of this pipeline, e.g. build_bias for masters.")] = None,
    since: Annotated[str, typer.Option(help="First day: 20261120, 2026-11-20, or 90d, 6m, 1y ago.")] = "",
    until: Annotated[str, typer.Option(help="Last day, likewise.")] = "",
    as_map: Annotated[bool, typer.Option("--map", help="The drift of every amp of the camera.")] = False,
    show: Annotated[str, typer.Option(help="Of a map: change, percent, sigma, slope, last.")] = "percent",
    plot: Annotated[Path | None, typer.Option(help="Draw it into a .png, .svg or .pdf.")] = None,
    alarms: Annotated[bool, typer.Option("--alarms", help="List alarms; exit status 3 if one is open.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="With --alarms: also acknowledged ones and what is over.")
    ] = False,
    acknowledge: Annotated[int | None, typer.Option(help="Acknowledge the alarm of this number.")] = None,
    reason: Annotated[str, typer.Option(help="With --acknowledge: what it was.")] = "",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the trends anew from the stored results.")] = False,
    camera: CameraName = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show how a number of the calibrations went over months, with calibs, exclusions and alarms beside it.

    Example: rapid calib trend stdev_e --detector R22_S11 --amp C00 --since 6m --plot noise.png

    rapid calib trend flat_level_e --map --plot drift.png; rapid calib trend --alarms;
    rapid calib trend --acknowledge 12 --reason 'board replaced'
    """
    from rapid.trends.alarms import AlarmStore
    from rapid.trends.models import FIRST_DAY, LAST_DAY
    from rapid.trends.plot import DRIFT_VALUES, format_of
    from rapid.trends.watch import TrendWatch

    first = day_of(since, "--since") if since else FIRST_DAY
    last = day_of(until, "--until") if until else LAST_DAY
    if last < first:
        raise ConfigurationError("--until", f"{until} is before {since}")
    if show not in DRIFT_VALUES:
        raise ConfigurationError("--show", f"{show!r} is none of {', '.join(DRIFT_VALUES)}")
    picture = format_of(plot) if plot is not None else ""
    known, engine = _open(camera, data)
    watch = TrendWatch(engine)
    if acknowledge is not None:
        done = AlarmStore(engine).acknowledge(
            known.name, acknowledge, by=whoami(), reason=reason, now=datetime.now(UTC)
        )
        print_json(done.document()) if as_json else print("\n".join(_alarm_lines([done])))
        return
    if rebuild:
        n = watch.trends.rebuild(known.name, first_day=first, last_day=last)
        watch.run(known.name)
        print_json({"results": n}) if as_json else print(f"{n} results are in the trends")
        return
    number = detector_of(known, detector) if detector else None
    if alarms:
        watch.run(known.name)
        _list_alarms(watch, known, metric, number, first, last, everything=everything, as_json=as_json)
        return
    watch.trends.update()
    if as_map:
        if not metric:
            raise ConfigurationError("metric", "a map is of one number: name it")
        drift = watch.trends.drift_map(
            known.name, metric, image_type=image_type, condition=condition, pipeline=pipeline,
            first_day=first, last_day=last,
        )  # fmt: skip
        if plot is not None:
            from rapid.trends.plot import plot_map

            plot.write_bytes(plot_map(known, drift, show=show, file_format=picture))
        if as_json:
            print_json(drift.model_dump(mode="json"))
        else:
            _print_map(drift, DRIFT_VALUES[show], plot)
        return
    if not metric:
        facts = [one for one in watch.trends.metrics(known.name) if image_type in {None, one.image_type}]
        if as_json:
            print_json([one.model_dump(mode="json") for one in facts])
        else:
            print("\n".join(_metric_lines(facts)) or f"no calibration of {known.name} has been measured yet")
        return
    if number is None:
        if not watch.trends.keys(known.name, metric=metric):
            raise ConfigurationError(
                "metric", f"{known.name} has no trend of {metric!r}; `rapid calib trend` lists them"
            )
        raise ConfigurationError("--detector", "name the detector, or ask for --map")
    histories = watch.trends.history(
        known.name, metric, detector=number, amp=amp, image_type=image_type, condition=condition, pipeline=pipeline,
        first_day=first, last_day=last,
    )  # fmt: skip
    _print_history(watch, known, histories, plot, picture, as_json=as_json)


def _metric_lines(facts: "Sequence[SeriesFacts]") -> list[str]:
    """Return a line for each number: in which images it is measured, and since when."""
    lines = []
    for metric, several in groupby(facts, lambda one: one.metric):
        found = list(several)
        kinds = Counter(
            f"master {one.image_type}" if one.pipeline.startswith("build_") else one.image_type for one in found
        )
        where = ", ".join(f"{kind} ({n} conditions)" if n > 1 else kind for kind, n in kinds.items())
        days = f"{min(one.first_day for one in found)} to {max(one.last_day for one in found)}"
        lines.append(f"{metric:34} {days}  {where}")
    return lines


def _list_alarms(
    watch: Any,
    known: "Camera",
    metric: str,
    detector: int | None,
    first: int,
    last: int,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    from rapid.trends.models import AlarmState

    found = watch.alarms.alarms(
        known.name, state=None if everything else AlarmState.OPEN, metric=metric or None, detector=detector,
        first_day=first, last_day=last, limit=10_000,
    )  # fmt: skip
    if as_json:
        print_json([one.document() for one in found])
    else:
        print("\n".join(_alarm_lines(found)) or "no alarm is open")
    if any(one.state is AlarmState.OPEN for one in found):
        raise typer.Exit(ALARMS_OPEN)


def _print_map(drift: Any, field: str, plot: Path | None) -> None:
    rows = [
        (getattr(facts, field), f"{drift.names[detector]}/{amp}" if amp else drift.names[detector], facts)
        for detector, amps in drift.amps.items()
        for amp, facts in amps.items()
        if getattr(facts, field) is not None
    ]
    rows.sort(key=lambda row: -abs(row[0]))
    print(f"{drift.key.title}, {drift.n_exposures} exposures, {drift.first_day} to {drift.last_day}; largest first")
    for value, name, facts in rows[:20]:
        print(f"  {name:16} {field} {value:+.4g}   {facts.first:.6g} -> {facts.last:.6g} {drift.unit}")
    if plot is not None:
        print(f"drawn into {plot}")


def _print_history(
    watch: Any, known: "Camera", histories: "list[SeriesHistory]", plot: Path | None, picture: str, *, as_json: bool
) -> None:
    from rapid.trends.events import EventStore

    if not histories:
        raise ConfigurationError("--since", "nothing was measured in these days")
    events = EventStore(watch.trends.engine).events(known.name, histories)
    if plot is not None:
        from rapid.trends.plot import plot_history

        plot.write_bytes(plot_history(histories, events, file_format=picture))
    if as_json:
        print_json(
            {
                "series": [one.model_dump(mode="json") for one in histories],
                "calibs": [one.model_dump(mode="json") for one in events.calibs],
                "exclusions": [one.model_dump(mode="json") for one in events.exclusions],
                "alarms": [one.document() for one in events.alarms],
            }
        )
        return
    print("\n".join(_history_lines(histories)))
    for boundary in events.calibs:
        print(f"  {boundary.day}  {boundary.state} {boundary.calib_id}")
    for gone in events.exclusions:
        print(f"  {gone.first_day}  excluded {gone.target}: {gone.reason}")
    print("\n".join(_alarm_lines(events.alarms)))
    if plot is not None:
        print(f"drawn into {plot}")


def register(app: typer.Typer) -> None:
    """Add the command to `rapid calib`."""
    calib_group(app).command("trend")(trend)
