"""`rapid catalogue`: make and look at the reference catalogues that give zero points."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.errors import ConfigurationError, NotFoundError

app = typer.Typer(help="Reference catalogues: stars of known magnitude, for zero points.", no_args_is_help=True)


def _columns_of(magnitudes: list[str]) -> dict[str, str]:
    columns = {}
    for text in magnitudes:
        band, _, column = text.partition("=")
        if not band or not column:
            raise ConfigurationError("--mag", f"{text!r} is not BAND=COLUMN, e.g. r=rMag")
        columns[band] = column
    return columns


@app.command("make")
def make(
    table: Annotated[Path, typer.Argument(help="Table with stars: FITS, ECSV or CSV.")],
    into: Annotated[Path, typer.Option(help="New directory of the catalogue.")],
    mag: Annotated[list[str], typer.Option(help="BAND=COLUMN of magnitudes; may be repeated.")],
    ra: Annotated[str, typer.Option(help="Column of the right ascension, ICRS [deg].")] = "ra",
    dec: Annotated[str, typer.Option(help="Column of the declination, ICRS [deg].")] = "dec",
    name: Annotated[str | None, typer.Option(help="Name of the catalogue; that of the table if left out.")] = None,
) -> None:
    """Cut a table of stars with AB magnitudes into the tiles that payload `quality` reads.

    Example: rapid catalogue make monster.fits --into /data/monster --mag r=rMag --mag i=iMag
    """
    import numpy as np
    from astropy.table import Table

    from payloads.quality.catalogue import write_catalogue

    if not table.is_file():
        raise NotFoundError("table", table)
    columns = _columns_of(mag)
    try:
        found = Table.read(table)
    except Exception as error:
        # astropy raises whatever its reader met; for the user it is a table that cannot be read.
        reason = str(error).partition("\n")[0]
        raise ConfigurationError("table", f"{table} cannot be read: {reason}") from error
    missing = [column for column in (ra, dec, *columns.values()) if column not in found.colnames]
    if missing:
        raise ConfigurationError("columns", f"{table} has no {missing[0]}; it has {', '.join(found.colnames)}")

    def values(column: str) -> Any:
        return np.ma.filled(np.ma.asarray(found[column], dtype=np.float64), np.nan)

    try:
        n_tiles = write_catalogue(
            into,
            values(ra),
            values(dec),
            {band: values(column) for band, column in columns.items()},
            name=name or table.stem,
            system="AB",
            made_on=datetime.now(UTC).date(),
            source=table.name,
        )
    except ValueError as error:
        raise ConfigurationError("table", str(error)) from error
    print(f"wrote {len(found)} stars in {n_tiles} tiles to {into}")


@app.command("learn")
def learn(
    files: Annotated[list[Path], typer.Argument(help="Raws of a good night, of one filter each.")],
    into: Annotated[Path, typer.Option(help="New directory of the catalogue.")],
    calibs: Annotated[
        Path | None, typer.Option(help="Data folder (of rapid up) whose certified calibs to use.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the catalogue.")] = "own",
) -> None:
    """Make a relative reference from our own exposures: transparency is then measured against them.

    Example: rapid catalogue learn MC_O_20261120_0001*.fits.fz --into /data/deep_f12

    Positions are the headers' pointing, magnitudes those of the instrument at airmass 1. One exposure per field is
    enough; overlapping ones make double stars.
    """
    from payloads.quality.calibrate import learn_stars
    from payloads.quality.catalogue import write_catalogue
    from rapid.cli.process import calibs_of, read_file
    from rapid.pipeline.store import load_pipeline
    from rapid.worker.run import PipelineRunner, RawInput

    runner = PipelineRunner(calibs_for=calibs_of(calibs) if calibs else None)
    pipeline = load_pipeline("quicklook")
    frames = (runner.run(RawInput(uri=str(path), data=read_file(path)), pipeline=pipeline).frame for path in files)
    ra, dec, magnitudes, n_frames = learn_stars(frames)
    if len(ra) == 0:
        raise ConfigurationError("files", "no raw has stars with a place, a filter and an exposure time")
    n_tiles = write_catalogue(
        into,
        ra,
        dec,
        magnitudes,
        name=name,
        system="instrument",
        made_on=datetime.now(UTC).date(),
        source=f"{n_frames} raws, first {files[0].name}",
    )
    print(f"learnt {len(ra)} stars of {n_frames} raws, {n_tiles} tiles in {into}")


@app.command("show")
def show(
    directory: Annotated[Path, typer.Argument(help="Directory of the catalogue.")],
    ra: Annotated[float | None, typer.Option(help="Show stars around here [deg].")] = None,
    dec: Annotated[float | None, typer.Option(help="Show stars around here [deg].")] = None,
    radius: Annotated[float, typer.Option(min=0.0, max=10.0, help="Within this [deg].")] = 0.05,
    band: Annotated[str | None, typer.Option(help="Band; the catalogue's first if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what a catalogue is and what it has in a place. Example: rapid catalogue show /data/monster --ra 60 --dec -30"""
    from payloads.quality.catalogue import ReferenceCatalogue

    catalogue = ReferenceCatalogue(directory)
    facts = catalogue.facts.model_dump(mode="json")
    rows: list[dict[str, float]] = []
    if ra is not None and dec is not None:
        stars = catalogue.stars_around(ra, dec, radius, band or catalogue.facts.bands[0])
        rows = [
            {"ra_deg": float(r), "dec_deg": float(d), "mag": round(float(m), 3)}
            for r, d, m in zip(stars.ra_deg, stars.dec_deg, stars.mag, strict=True)
        ]
    if as_json:
        print_json({**facts, "stars": rows})
        return
    print("\n".join(f"{key:8} {value}" for key, value in facts.items()))
    if ra is not None and dec is not None:
        print(f"{len(rows)} stars within {radius} deg")
        for row in rows[:20]:
            print(f"{row['ra_deg']:11.6f} {row['dec_deg']:+10.6f} {row['mag']:7.3f}")


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="catalogue")
