"""`rapid process`: run a pipeline on raws, no Redis anywhere."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid.cli.output import print_json
from rapid.errors import RapidError


def process(
    files: Annotated[list[Path], typer.Argument(help="Raws: FITS, plain, compressed or gzipped.")],
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Pipeline; by the rules if left out.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per raw and line (the default off a terminal).")
    ] = False,
    write_images: Annotated[
        Path | None, typer.Option(help="Write each image as FITS, and files that payloads keep, into this folder.")
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Camera the raws must be from; any if left out.")] = None,
    calibs: Annotated[
        Path | None, typer.Option(help="Data folder (of rapid up) whose certified calibs to use.")
    ] = None,
) -> None:
    """Run a pipeline on raws and say what was found.

    Example: rapid process raw.fits --pipeline assemble --write-images out/

    Exit status 1 if any raw could not be processed; its JSON object then has "error" instead of results.
    """
    from rapid.camera.store import load_camera
    from rapid.pipeline.store import load_pipeline
    from rapid.worker.run import PipelineRunner, RawInput

    runner = PipelineRunner(calibs_for=calibs_of(calibs) if calibs else None)
    wanted = load_pipeline(pipeline) if pipeline else None
    expected = load_camera(camera) if camera else None
    failed = False
    for path in files:
        try:
            run = runner.run(RawInput(uri=str(path), data=read_file(path)), pipeline=wanted, camera=expected)
            if write_images is not None:
                run.result.products.update(_write_images(run, write_images))
        except RapidError as error:
            failed = True
            _report({"file": str(path), "error": error.to_dict()}, as_json=as_json)
            continue
        except Exception as error:  # noqa: BLE001 - one raw ends here as failed; the others go on
            failed = True
            from rapid.worker.child import describe_error

            _report({"file": str(path), "error": describe_error(error)}, as_json=as_json)
            continue
        _report({"file": str(path), **run.result.model_dump(mode="json")}, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def read_file(path: Path) -> bytes:
    """Return a file's bytes; one that is not there or cannot be read is an error that says so."""
    from rapid.errors import NotFoundError, StoreError

    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError("file", path) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error


def _report(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        print_json(document)
        return
    if "error" in document:
        print(f"{document['file']}: {document['error']['message']}  [{document['error']['code']}]")
        return
    print(
        f"{document['exposure']} {document['detector_name']} {document['image_type']} {document['pipeline']} "
        f"({document['timings']['total_s']:.2f} s): {', '.join(document['provenance']['applied'])}"
    )
    for name, value in sorted(document["metrics"].items()):
        print(f"    {name:36} {value:.6g}" if isinstance(value, float) else f"    {name:36} {value}")


def calibs_of(data: Path) -> Any:
    """Return what gives an exposure its calibs from an installation's data folder."""
    from rapid.calibs.store import CalibCache, CalibStore, FrameCalibs
    from rapid.results.store import open_results

    results = open_results(str(data / "results.sqlite"))
    cache = CalibCache(CalibStore(data / "calibs", results), results)
    cache.refresh()
    return lambda info: FrameCalibs(cache, info)


def _write_images(run: Any, folder: Path) -> dict[str, str]:
    """Write image, mask and variance of a run, and the files its payloads keep; return where."""
    from astropy.io import fits

    frame, result = run.frame, run.result
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{result.exposure}_{result.detector_name}_{result.pipeline}"
    written: dict[str, str] = {}
    for name, file in frame.files.items():
        path = folder / f"{stem}_{name}.{file.extension}"
        _write_whole(path, lambda part, data=file.data: part.write_bytes(data))  # type: ignore[misc]  # a default binds it
        written[name] = str(path)
    if frame.image is None:
        return written
    path = folder / f"{stem}.fits"
    primary = fits.PrimaryHDU(frame.image)
    primary.header["INSTRUME"] = result.camera
    primary.header["EXPID"] = result.exposure
    primary.header["DETECTOR"] = result.detector
    primary.header["DETNAME"] = result.detector_name
    primary.header["IMGTYPE"] = result.image_type
    primary.header["PIPELINE"] = result.pipeline
    primary.header["BUNIT"] = frame.unit
    primary.header["RAWSHA"] = result.provenance.raw_sha256
    hdus = fits.HDUList([primary])
    if frame.mask is not None:
        hdus.append(fits.ImageHDU(frame.mask, name="MASK"))
    if frame.variance is not None:
        hdus.append(fits.ImageHDU(frame.variance, name="VARIANCE"))
    _write_whole(path, lambda part: hdus.writeto(part, overwrite=True))
    return {**written, "image": str(path)}


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    write(temporary)
    temporary.replace(path)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(process)
