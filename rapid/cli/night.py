"""`rapid night`: the report of a night, and its log."""

from pathlib import Path
from typing import Annotated

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data

night_app = typer.Typer(help="The report of a night, and what observers wrote.", no_args_is_help=True)

DayObs = Annotated[int, typer.Argument(min=19900101, max=99991231, help="Observing day, YYYYMMDD.")]


@night_app.command("report")
def report(
    day_obs: DayObs,
    html: Annotated[Path | None, typer.Option(help="Write it as one HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    link_to: Annotated[str, typer.Option(help="Address of a display, for links from the HTML to exposures.")] = "",
    camera: CameraName = None,
    data: Data = None,
) -> None:
    """Add up a night: hours used, seeing, what is missing and why, calibrations, comments.

    Example: rapid night report 20261120 --camera LSSTCam --html report.html
    """
    from rapid.nightlog.page import render_report
    from rapid.nightlog.report import night_report
    from rapid.results.store import open_results
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, data=data)
    results = open_results(settings.results)
    try:
        made = night_report(adopt_camera(settings.camera), results, day_obs)
    finally:
        results.close()
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render_report(made, link_to=link_to.rstrip("/")), encoding="utf-8")
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    if html is not None:
        print(f"report of {day_obs} written to {html}")
        return
    used = made.efficiency
    fraction = "" if used.open_fraction is None else f", {100 * used.open_fraction:.1f} % of the night"
    print(
        f"{made.camera} {day_obs}: {made.n_exposures} exposures, {used.n_sky} of the sky; {used.open_hours:.2f} h open{fraction}"
    )
    for count in made.counts:
        print(f"  {count.n:5d} {count.image_type:10} {count.physical_filter or '-':8} {count.exposure_time_s:9.1f} s")
    for spread in made.quality:
        name = f"{spread.title} {spread.physical_filter or 'all'}"
        print(f"  {name:36} {spread.median:.{spread.decimals}f} {spread.unit} (best {spread.best:.{spread.decimals}f})")
    print(
        f"{made.n_complete} complete, {made.n_partial} partial, {made.n_failed} failed; {len(made.comments)} comments, {len(made.flags)} flagged"
    )


@night_app.command("log")
def log(
    day_obs: DayObs,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON, with what was taken back.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print as CSV.")] = False,
    camera: CameraName = None,
    data: Data = None,
) -> None:
    """Print what observers wrote in a night. Example: rapid night log 20261120 --csv > log.csv"""
    from rapid.nightlog.export import as_csv as to_csv
    from rapid.nightlog.store import NightLog
    from rapid.results.store import open_results
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, data=data)
    results = open_results(settings.results)
    try:
        name = adopt_camera(settings.camera).name
        entries = NightLog(results.engine).entries(name, day_obs=day_obs, history=as_json)
    finally:
        results.close()
    if as_json:
        print_json([entry.model_dump(mode="json") for entry in entries])
    elif as_csv:
        print(to_csv(entries), end="")
    else:
        for entry in entries:
            where = f"{entry.seq_num:06d}" if entry.seq_num is not None else "night "
            flag = f" [{entry.flag.value}]" if entry.flag else ""
            print(f"{entry.created_at:%H:%M:%S} {where} {entry.author}{flag}: {entry.text}")
        if not entries:
            print("nothing was written")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(night_app, name="night")
