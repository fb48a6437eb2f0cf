"""`rapid sinks`: metrics for systems outside: what waits, what was given up, and documents of one exposure."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.cli.roles import CameraName, Data
from rapid.errors import ConfigurationError, NotFoundError

sinks_app = typer.Typer(help="Metrics for InfluxDB, Sasquatch and lsst.verify.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def _folders(data: Any, name: str = "") -> dict[str, Path]:
    from rapid.wiring.settings import make_settings

    folder = make_settings(data=data).sinks_folder
    found = {one.name: one for one in sorted(folder.glob("*")) if (one / "waiting").is_dir()}
    if not name:
        return found
    if name not in found:
        known = ", ".join(found) or "none"
        raise ConfigurationError("sink", f"nothing was ever sent to {name[:60]!r} from {folder} (known: {known})")
    return {name: found[name]}


@sinks_app.command("status")
def status(data: Data = None, as_json: AsJson = False) -> None:
    """Show what waits for each sink. Example: rapid sinks status --json"""
    from rapid.sinks.spool import Spool

    rows = []
    for name, folder in _folders(data).items():
        spool = Spool(folder)
        first = spool.first()
        oldest = first[1].spooled_at.isoformat(timespec="seconds") if first else None
        rows.append({"sink": name, "n_waiting": spool.n_waiting, "oldest": oldest, "n_dead": spool.n_dead})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        since = f" since {row['oldest']}" if row["oldest"] else ""
        print(f"{row['sink']:12} {row['n_waiting']} parcels wait{since}, {row['n_dead']} dead letters")
    if not rows:
        print("no metric sink has been used")


@sinks_app.command("dead")
def dead(
    sink: Annotated[str, typer.Argument(help="influx or sasquatch; all if left out.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what was given up, newest first. Example: rapid sinks dead influx"""
    from rapid.sinks.spool import Spool

    rows = [
        {
            "sink": name,
            "what": letter.name,
            "n_documents": letter.n_documents,
            "died_at": letter.died_at.isoformat(timespec="seconds") if letter.died_at else None,
            "why": letter.why,
            "file": str(letter.file),
        }
        for name, folder in _folders(data, sink).items()
        for letter in Spool(folder).dead(limit)
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['died_at']}  {row['sink']:10} {row['n_documents']:>5} documents of {row['what']}: {row['why']}")
    if not rows:
        print("nothing was given up")


@sinks_app.command("retry")
def retry(
    sink: Annotated[str, typer.Argument(help="influx or sasquatch.")], data: Data = None, as_json: AsJson = False
) -> None:
    """Let dead letters wait again: the publish role sends them with the next exposure. Example: rapid sinks retry influx"""
    from rapid.sinks.spool import Spool

    n_revived = sum(Spool(folder).retry_dead() for folder in _folders(data, sink).values())
    print_json({"sink": sink, "n_revived": n_revived}) if as_json else print(f"{n_revived} parcels wait again")


@sinks_app.command("export")
def export(
    exposure: Annotated[int, typer.Argument(help="Exposure id.")],
    pipeline: Annotated[str, typer.Option(help="Only this pipeline's.")] = "",
    camera: CameraName = None,
    data: Data = None,
) -> None:
    """Print the metrics of an exposure as lsst.verify jobs, JSON. Example: rapid sinks export 2026112000012"""
    from rapid.results.store import open_results
    from rapid.sinks.documents import documents_of
    from rapid.sinks.verify_job import to_verify_text
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings

    settings = make_settings(camera=camera, data=data)
    name = adopt_camera(settings.camera).name
    if "://" not in settings.results and not Path(settings.results).exists():
        raise ConfigurationError("data", f"there is no results store at {settings.results}; give --data")
    results = open_results(settings.results)
    documents = []
    for summary in results.summary_versions(name, exposure):
        newest = results.latest_summary(name, exposure, pipeline=summary.pipeline, run=summary.run)
        if newest is None or newest.version != summary.version or (pipeline and summary.pipeline != pipeline):
            continue
        found = results.results(exposure, camera=name, run=summary.run, pipeline=summary.pipeline)
        documents += documents_of(summary, found)
    results.close()
    if not documents:
        raise NotFoundError("summary of exposure", exposure, name)
    print(to_verify_text(documents))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(sinks_app, name="sinks")
