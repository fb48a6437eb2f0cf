"""`rapid replay record`: a running system's night, live or afterwards."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapid.errors import ConfigurationError
from replay.recording import PixelKind

if TYPE_CHECKING:
    from rapid.camera.models import Camera
    from rapid.wiring.settings import RoleSettings
    from replay.record import NightNotes
    from replay.recording import Recording


def record(
    out: Annotated[Path, typer.Option(help="Folder or .zip to write.")],
    from_results: Annotated[
        int | None, typer.Option(help="Record this day (YYYYMMDD) from the stores, and do not follow.")
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Name or file of the camera.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL of the board; follows its events.")] = None,
    data: Annotated[Path | None, typer.Option(help="The system's data folder: its results store.")] = None,
    results: Annotated[str | None, typer.Option(help="URL of the results store, if it is elsewhere.")] = None,
    raws: Annotated[str | None, typer.Option(help="Where raws arrive: a directory or s3://bucket/prefix.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Truth of simulated raws: their pixels are then made again exactly.")
    ] = None,
    day_obs: Annotated[int | None, typer.Option(help="Follow only this night's exposures.")] = None,
    until_idle: Annotated[
        float, typer.Option(min=0, help="The night is over when nothing has arrived for so long [s]; 0 for never.")
    ] = 0.0,
    pixels: Annotated[
        PixelKind, typer.Option(help="How pixels are kept; seed: not at all, they are simulated anew.")
    ] = PixelKind.SEED,
    binning: Annotated[int, typer.Option(min=2, max=64, help="Of binned pixels.")] = 8,
    no_results: Annotated[bool, typer.Option("--no-results", help="Leave results out.")] = False,
    title: Annotated[str, typer.Option(help="What the recording is of.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a recording that is there.")] = False,
) -> None:
    """Record a night. Example: rapid replay record --from-results 20261120 --raws night/raws --data data --out n.zip"""
    from rapid.camera.store import portable_definition
    from rapid.results.store import open_results
    from rapid.wiring.camera import adopt_camera
    from rapid.wiring.settings import make_settings
    from replay.record import Recorder, save, see_stored

    given = {"camera": camera, "redis_url": redis, "data": data, "results_url": results, "raws": raws}
    settings = make_settings(**{name: value for name, value in given.items() if value is not None})
    if not settings.raws:
        raise ConfigurationError("raws", "say where raws arrive: --raws DIR")
    if truth is not None and not truth.is_dir():
        raise ConfigurationError("truth", f"{truth} is no folder")
    if out.exists() and not overwrite:
        raise ConfigurationError("out", f"{out} is there already; --overwrite replaces a recording")
    known = adopt_camera(settings.camera)
    if from_results is not None:
        seen = see_stored(settings.raws, camera=known, day_obs=from_results)
        if redis is not None:
            _hear_the_board(redis, known.name, seen)
    else:
        seen = asyncio.run(_follow(settings, known, day_obs=day_obs, idle_s=until_idle))
    store = open_results(settings.results)
    try:
        recorder = Recorder(known, store)
        made = recorder.record(seen, truth=truth or truth_beside(settings.raws), title=title or out.stem)
        if no_results:
            made.results, made.summaries = [], []
        made = made.with_manifest(camera_yaml=portable_definition(settings.camera))
        save(made, seen, known, out, pixels=pixels, binning=binning, overwrite=overwrite)
    finally:
        store.close()
    size = out.stat().st_size if out.is_file() else sum(one.stat().st_size for one in out.rglob("*") if one.is_file())
    print(
        f"{out}: {len(made.exposures)} exposures, {made.n_raws} raws, {len(made.results)} tables of results, "
        f"{made.manifest.duration_s:.0f} s, {size / 1000:.0f} kB"
    )
    if not no_results and (open_ := _unfinished(made)):
        print(
            f"rapid: {len(open_)} of them had no complete summary: {', '.join(map(str, open_[:5]))}"
            f"{' ...' if len(open_) > 5 else ''}. If the night goes on, record it again later",
            file=sys.stderr,
        )


def _unfinished(made: "Recording") -> list[int]:
    """Return the exposures of which more may come: raws of them arrived, and no complete summary is there."""
    complete = {summary.exposure for summary in made.summaries if summary.is_complete}
    return sorted(made.exposures.keys() - complete)


def truth_beside(raws: str) -> Path | None:
    """Return the truth that a simulator left beside its raws."""
    if "://" in raws:
        return None
    folder = Path(raws).parent / "truth"
    return folder if folder.is_dir() else None


def _hear_the_board(url: str, camera: str, seen: "NightNotes") -> None:
    """Take in what the board still tells."""
    from datetime import UTC, datetime

    from rapid.dispatch.board import Board
    from rapid.next_visit import store as visits
    from replay.announced import seen_visits

    with Board(url, camera, outage_s=5.0) as board:
        last = "0"
        while events := board.events(last, timeout_s=0.01):
            last = events[-1].event_id
            seen.hear(events)
        last = "0-0"
        while news := board.connection.run(visits.follow(board.prefix, last, timeout_s=0.01)):
            last = news[-1].entry_id
            seen.visits += seen_visits(news)
        seen.times.note(datetime.now(UTC).timestamp() * 1000, board.now_ms())


async def _follow(settings: "RoleSettings", camera: "Camera", *, day_obs: int | None, idle_s: float) -> "NightNotes":
    from rapid.dispatch.board import AsyncBoard
    from replay.live import LiveRecorder

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def tell(notes: "NightNotes") -> None:
        if not sys.stdout.isatty():
            return  # a log needs no line for every raw
        print(f"\r{len(notes.raws)} raws of {len({raw.exposure for raw in notes.raws})} exposures", end="", flush=True)

    async with AsyncBoard(settings.redis_url, camera.name, outage_s=5.0) as board:
        await board.time()  # a board that is not there is said before anything is waited for
        print(f"following {settings.raws}; Ctrl-C ends the recording")
        recorder = LiveRecorder(camera, settings.raws, board, day_obs=day_obs, idle_s=idle_s, on_news=tell)
        notes = await recorder.run(stop)
    if sys.stdout.isatty():
        print()
    return notes
