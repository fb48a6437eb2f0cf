"""`rapid patterns`: which detectors a pattern means."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid.cli.output import print_json

if TYPE_CHECKING:
    from rapid.camera.models import Camera


def patterns(
    expression: Annotated[
        list[str] | None,
        typer.Argument(help="A name, or an expression as 'ccd_checkerboard & e2v | R22'; empty lists all names."),
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Name, alias, or path of a YAML file; else RAPID_CAMERA, else LSSTCam.")
    ] = None,
    phase: Annotated[int, typer.Option(min=0, help="Which phase of a pattern that has several.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture (.png, .svg or .pdf); without an expression, a sheet of all.")
    ] = None,
) -> None:
    """Show which detectors a pattern selects. Example: rapid patterns 'all - R22, R33_S11' --plot chosen.png

    Names and expressions are explained in docs/patterns.md.
    """
    from rapid.camera.store import load_camera
    from rapid.wiring.settings import make_settings

    _check_plot(plot)
    found = load_camera(make_settings(camera=camera).camera)
    # Words given one by one are one expression: rapid patterns 5 on a die
    text = " ".join(expression or [])
    if expression is not None:
        _show(text, found, phase, as_json=as_json, plot=plot)
    elif phase:
        raise typer.BadParameter("needs a pattern", param_hint="--phase")
    else:
        _list(found, as_json=as_json, plot=plot)


def _show(text: str, camera: "Camera", phase: int, *, as_json: bool, plot: Path | None) -> None:
    from rapid.patterns import parse_pattern
    from rapid.patterns.plot import plot_pattern, sketch

    pattern = parse_pattern(text)
    n_phases = pattern.phases(camera)
    if phase >= n_phases:
        has = f"the phases 0 to {n_phases - 1}" if n_phases > 1 else "phase 0 only"
        raise typer.BadParameter(f"{pattern} has {has} for {camera.name}", param_hint="--phase")
    ids = pattern.detectors(camera, phase)
    which = f" (phase {phase}, there are {n_phases})" if n_phases > 1 else ""
    facts = _facts(str(pattern), camera, phase, n_phases, ids)
    if plot is not None:
        _write(plot, plot_pattern(camera, ids, f"{pattern}{which}", format=_format(plot)))
        facts["plot"] = str(plot)
    if as_json:
        print_json(facts)
        return
    if plot is not None:
        print(f"wrote {plot}")
        return
    print(f"{pattern}{which}: {len(ids)} of {len(camera.detectors)} detectors of {camera.name}\n")
    print(sketch(camera, ids))
    print(f"\nnumbers  {facts['ranges']}")
    for raft, slots in facts["rafts"].items():
        print(f"{raft:<8} {' '.join(slots)}")


def _facts(text: str, camera: "Camera", phase: int, n_phases: int, ids: frozenset[int]) -> dict[str, Any]:
    chosen = [detector for detector in camera.detectors if detector.id in ids]
    rafts: dict[str, list[str]] = {}
    for detector in chosen:
        rafts.setdefault(detector.raft, []).append(detector.slot)
    return {
        "pattern": text,
        "camera": camera.name,
        "phase": phase,
        "phases": n_phases,
        "n_detectors": len(ids),
        "detectors": sorted(ids),
        "names": [detector.name for detector in sorted(chosen, key=lambda d: d.id)],
        "ranges": _ranges(ids),
        "rafts": rafts,
    }


def _ranges(ids: frozenset[int]) -> str:
    from rapid.patterns.pattern import runs_of

    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs_of(ids))


def _list(camera: "Camera", *, as_json: bool, plot: Path | None) -> None:
    from rapid.patterns import describe_patterns
    from rapid.patterns.plot import plot_sheet

    if plot is not None:
        _write(plot, plot_sheet(camera, format=_format(plot)))
    rows = describe_patterns(camera)
    if as_json:
        print_json(rows)
        return
    if plot is not None:
        print(f"wrote {plot}")
        return
    print(f"{'pattern':<26} {'detectors':<10} of {camera.name}")
    for row in rows:
        sizes = "" if row["sizes"] is None else " + ".join(map(str, row["sizes"]))
        print(f"{row['usage']:<26} {sizes or ('' if row['needs_arguments'] else 'none'):<10} {row['description']}")


def _check_plot(plot: Path | None) -> None:
    from rapid.patterns.plot import FORMATS

    if plot is None:
        return
    if _format(plot) not in FORMATS:
        raise typer.BadParameter(f"{plot} must end in .{', .'.join(FORMATS)}", param_hint="--plot")
    if not plot.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {plot.absolute().parent}", param_hint="--plot")


def _format(plot: Path) -> str:
    return plot.suffix.removeprefix(".").lower()


def _write(plot: Path, picture: bytes) -> None:
    try:
        plot.write_bytes(picture)
    except OSError as error:
        raise typer.BadParameter(f"{plot} cannot be written: {error.strerror}", param_hint="--plot") from error


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(patterns)
