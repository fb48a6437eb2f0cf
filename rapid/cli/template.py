"""`rapid template`: make the templates that payload `difference` subtracts, and look at them."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data
from rapid.errors import ConfigurationError

if TYPE_CHECKING:
    from payloads.difference.align import LeftOut
    from payloads.difference.build import TileReport
    from rapid.camera.models import Camera
    from rapid.wiring.settings import RoleSettings

app = typer.Typer(help="Templates: the sky without what comes and goes, for differences.", no_args_is_help=True)

SCALE_ARCSEC = 0.4
"""About the side of a new folder's pixels: a detector of 4000 px a side is then subtracted in a second."""
MAX_SHOWN = 200

Templates = Annotated[Path | None, typer.Option("--templates", help="Folder of templates [RAPID_TEMPLATES].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def _folder(settings: "RoleSettings") -> Path:
    if settings.templates is None:
        raise ConfigurationError("templates", "name their folder by --templates, or in RAPID_TEMPLATES")
    return settings.templates


@app.command("build")
def build(
    exposures: Annotated[
        list[str], typer.Option("--exposure", "-e", help="Exposure id or range FIRST-LAST; may be repeated.")
    ],
    templates: Templates = None,
    band: Annotated[str | None, typer.Option(help="Only of this band; of all if left out.")] = None,
    detectors: Annotated[str | None, typer.Option(help="A pattern expression; all if left out.")] = None,
    run: Annotated[str, typer.Option(help="The run whose results are used.")] = "prompt",
    min_exposures: Annotated[
        int, typer.Option(min=1, max=50, help="Where fewer exposures lie there is no template.")
    ] = 3,
    max_exposures: Annotated[
        int, typer.Option(min=1, max=50, help="Of more those with the best seeing are taken.")
    ] = 20,
    max_fwhm: Annotated[
        float | None, typer.Option(min=0.1, help="Leave out images of a FWHM above this [arcsec].")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(min=0.02, max=10, help="Side of a pixel of a new folder's templates [arcsec].")
    ] = None,
    camera: CameraName = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make templates of exposures that are processed. Example: rapid template build -e 2026112000010-2026112000030

    Of their pipelines, payload keep_calibrated has to have kept the calibrated images. A template that is there already
    is replaced; the version before it stays, and the same exposures make the same template. Exit status 1 if none was made.
    """
    from payloads.difference.align import align
    from payloads.difference.build import build_templates
    from payloads.difference.store import make_store
    from rapid.products.store import open_products
    from rapid.requests.reading import read_spec
    from rapid.results.store import open_results
    from rapid.templates.inputs import find_inputs
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, data=data, templates=templates)
    folder = _folder(settings)
    if max_exposures < min_exposures:
        raise ConfigurationError("max_exposures", f"{max_exposures} is less than the {min_exposures} of min_exposures")
    known = adopt_camera(settings.camera)
    listed = read_spec({"select": {"exposures": exposures}}).select.listed()
    if "://" not in settings.results and not Path(settings.results).exists():
        raise ConfigurationError(
            "data", f"there is no results store at {settings.results}; give --data, or RAPID_RESULTS_URL"
        )
    store = make_store(folder, scale_arcsec=_scale_of(folder, scale, known))
    results = open_results(settings.results)
    try:
        inputs = find_inputs(
            results,
            open_products(settings.products),
            known,
            listed,
            run=run,
            band=band,
            detectors=_numbers(detectors, known),
            max_fwhm_arcsec=max_fwhm,
        )
    finally:
        results.close()
    left_out = list(inputs.left_out)
    reports: list[TileReport] = []
    for name in sorted(inputs.by_band):
        aligned, others = align(inputs.by_band[name])
        left_out += others
        for report in build_templates(
            aligned, store, band=name, min_exposures=min_exposures, max_exposures=max_exposures
        ):
            reports.append(report)
            if not as_json:
                print(_line(report))
    if as_json:
        print_json({"tiles": [_document(report) for report in reports], "left_out": [vars(one) for one in left_out]})
    else:
        _tell_left_out(left_out)
        n_made = sum(report.version is not None for report in reports)
        n_new = sum(report.is_new for report in reports)
        print(f"{n_made} templates in {folder}, {n_new} of them new")
    if not any(report.version is not None for report in reports):
        raise typer.Exit(1)


def _scale_of(folder: Path, scale: float | None, camera: "Camera") -> float:
    """Return the side of a pixel: as told, as the folder has it, or a whole number of the camera's pixels."""
    from payloads.difference.store import FACTS, TemplateStore

    if scale is not None:
        return scale
    if (folder / FACTS).exists():
        return TemplateStore(folder).facts.scale_arcsec
    pixel = camera.plate_scale_arcsec_per_mm * camera.detectors[0].pixel_mm
    return round(pixel * max(1, round(SCALE_ARCSEC / pixel)), 4)


def _numbers(detectors: str | None, camera: "Camera") -> frozenset[int] | None:
    if detectors is None:
        return None
    from rapid.patterns.pattern import parse_pattern

    return frozenset(parse_pattern(detectors).detectors(camera))


def _line(report: "TileReport") -> str:
    if report.version is None:
        return f"{report.band} {report.tile.name}  none: {report.reason}"
    state = "new" if report.is_new else "as it was"
    return (
        f"{report.band} {report.tile.name}  v{report.version:04d} {state:9} {len(report.exposures):3} exposures  "
        f"{report.fraction:6.1%} covered  {report.fwhm_arcsec:.2f} arcsec"
    )


def _document(report: "TileReport") -> dict[str, Any]:
    return {**vars(report), "tile": report.tile.name}


def _tell_left_out(left_out: "list[LeftOut]") -> None:
    exposures: dict[str, set[int]] = {}
    for one in left_out:
        exposures.setdefault(one.reason, set()).add(one.exposure_id)
    for reason, n in Counter(one.reason for one in left_out).most_common():
        first = min(exposures[reason])
        print(f"left out: {n} images of {len(exposures[reason])} exposures, first {first}: {reason}")


@app.command("list")
def list_templates(
    templates: Templates = None,
    band: Annotated[str | None, typer.Option(help="Only of this band.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the templates there are. Example: rapid template list --templates /data/templates --band r"""
    from payloads.difference.store import TemplateStore
    from rapid.wiring.settings import make_settings

    store: TemplateStore = TemplateStore(_folder(make_settings(templates=templates)))
    found = store.records(band=band)
    if as_json:
        print_json(
            [
                {**vars(one), "tile": one.tile.name, "path": str(one.path), "exposures": list(one.exposures)}
                for one in found
            ]
        )
        return
    print(f"{len(found)} templates, pixels of {store.facts.scale_arcsec} arcsec, in {store.directory}")
    for one in found[:MAX_SHOWN]:
        zero_point = f"{one.zero_point_mag:.2f} mag" if one.zero_point_mag is not None else "no zero point"
        print(
            f"{one.band:3} {one.tile.name}  v{one.version:04d}  {one.ra_deg:9.4f} {one.dec_deg:+9.4f}  "
            f"{len(one.exposures):3} exposures  {one.fraction:6.1%}  {one.fwhm_arcsec:.2f} arcsec  {zero_point}"
        )
    if len(found) > MAX_SHOWN:
        print(f"  ... {len(found) - MAX_SHOWN} more (all of them: --json)")


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="template")
