"""All science CCDs of LSSTCam through the whole system, as `rapid up` runs it; the peers on a sample beside it.

    python bench/bench_focal_plane.py [--workers N] [--distinct N] [--stars N] [--folder DIR]

Head, workers, gather and display run as processes of their own on an embedded Valkey. The raws, of 4k x 4k pixels and
16 Rice-compressed amps with 2000 stars, are prepared first; then they are renamed into the raw store all at once, and
the clock runs from there to the focal-plane summary. The pixels of the CCDs are rendered for nine of them and shared
by the others, whose headers are their own. The folder (4 GB) is removed at the end.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from bench_isr import DETECTOR, Calibs
from bench_quicklook import by_peers, core_ms
from sky_raws import CAMERA_NAME, SkyRaws

from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import EventKind
from rapid.exposure.naming import raw_key
from rapid.results.store import open_results
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor
from replay.simulate import expected_sensors

STARTING_CPU_S = 0.2
"""CPU time of all roles within the second before the first raw; more, and they are not all there yet."""

STALL_S = 300.0
"""With nothing finished for this long the run has failed."""


def prepare(folder: Path, n_distinct: int, n_stars: int) -> tuple[SkyRaws, list[tuple[Path, Path]]]:
    """Write the raws aside; return where each is and where it is to appear."""
    source = SkyRaws(n_distinct, stars_per_detector=n_stars)
    aside = folder / "aside"
    moves = []
    for number in source.exposure.detectors:
        name = source.camera.by_id[number].name
        key = raw_key(CAMERA_NAME, source.exposure.obs_id, name).split("/", 1)[1]
        path = aside / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.raw(number))
        moves.append((path, folder / "raws" / key))
    return source, moves


async def play(supervisor: Supervisor, source: SkyRaws, moves: list[tuple[Path, Path]], n_workers: int) -> "Run":
    """Lay the raws down once all workers are there, and follow them to the summary."""
    board = AsyncBoard(supervisor.redis_url, CAMERA_NAME)
    last, done, n_joined, moved_at = "0", set(), 0, time.monotonic()
    run = Run()
    try:
        while True:
            for event in await board.events(last, timeout_s=1.0):
                last, moved_at = event.event_id, time.monotonic()
                n_joined += event.kind is EventKind.WORKER_JOINED
                if event.exposure_id != source.exposure.exposure_id:
                    continue
                if event.kind is EventKind.JOB_FINISHED:
                    done.add(event.detector)
                    if len(done) == len(moves):
                        run.detectors_s = moved_at - run.begin_s
                elif event.kind is EventKind.SUMMARY_READY and event.data.get("is_complete"):
                    run.summary_s = moved_at - run.begin_s
                    run.cpu_s = {
                        role: spent - run.cpu_s.get(role, 0.0)
                        for role, spent in tree_cpu_s(supervisor.processes()).items()
                    }
                    return run
            if n_joined >= n_workers and not run.begin_s:
                before, run.cpu_s = run.cpu_s, tree_cpu_s(supervisor.processes())
                if sum(run.cpu_s.values()) - sum(before.values()) > STARTING_CPU_S:
                    continue  # what a night does once: processes for plots and wavefronts are still starting
                run.begin_s = time.monotonic()
                for path, final in moves:
                    path.rename(final)
            if time.monotonic() - moved_at > STALL_S:
                sys.exit(f"nothing for {STALL_S:.0f} s, {len(done)} of {len(moves)} detectors done")
    finally:
        await board.close()


@dataclass
class Run:
    """What one exposure took, from the first raw that appeared."""

    begin_s: float = 0.0
    detectors_s: float = 0.0
    summary_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)


def tree_cpu_s(pids: dict[str, int]) -> dict[str, float]:
    """Return CPU time by role of all processes below the roles."""
    found: dict[str, float] = {}
    for name, pid in pids.items():
        root = psutil.Process(pid)
        total = 0.0
        for process in (root, *root.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        role = name.rstrip("0123456789-.")
        found[role] = found.get(role, 0.0) + total
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 2))
    parser.add_argument("--distinct", type=int, default=9, help="CCDs whose pixels are rendered")
    parser.add_argument("--stars", type=int, default=2000, help="stars on a CCD")
    parser.add_argument("--sample", type=int, default=3, help="raws given to the peers")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if left out")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    camera = load_camera(CAMERA_NAME)
    folder = Path(tempfile.mkdtemp(prefix="rapid-focal-plane-", dir=arguments.folder))
    try:
        source, moves = prepare(folder, arguments.distinct, arguments.stars)
        size = sum(path.stat().st_size for path, _ in moves)
        print(f"{len(moves)} raws of {source.n_distinct} distinct CCDs, {size / 1e9:.2f} GB", flush=True)
        settings = make_settings(camera=CAMERA_NAME, raws=str(folder / "raws"), data=folder / "data", port=0)
        (folder / "raws").mkdir()
        supervisor = Supervisor(settings, n_workers=arguments.workers)
        supervisor.start()
        try:
            sensors = moves[0][1].parent / f"{source.exposure.obs_id}_expectedSensors.json"
            for directory in {final.parent for _, final in moves}:
                directory.mkdir(parents=True, exist_ok=True)
            sensors.write_bytes(expected_sensors(source.exposure, camera))
            run = asyncio.run(play(supervisor, source, moves, arguments.workers))
        finally:
            supervisor.stop()
        results = open_results(settings.results)
        found = results.results(source.exposure.exposure_id)
        results.close()
        wall = run.detectors_s
        per_ccd = [result.timings["cpu_s"] for result in found]
        print(f"all detectors {wall:.1f} s, summary {run.summary_s:.1f} s after the first raw appeared")
        print(f"  {len(found)} results, {len(found) / wall:.2f} CCDs/s with {arguments.workers} workers")
        print(
            f"  in the payloads: {statistics.median(per_ccd):.3f} core-s per CCD "
            f"[{min(per_ccd):.3f}-{max(per_ccd):.3f}], {sum(per_ccd):.1f} core-s in all"
        )
        print(f"  by role: {', '.join(f'{role} {value:.1f}' for role, value in sorted(run.cpu_s.items()))} core-s")
        print(
            f"  memory of a payload process: peak {max(r.resources['max_rss_mb'] for r in found):.0f} MB, "
            f"its own {max(r.resources['anon_mb'] for r in found):.0f} MB"
        )
        sigma = statistics.median(float(r.metrics["psf_fwhm_arcsec"] or 0.0) for r in found)
        print(f"  median FWHM {sigma:.3f} arcsec, {sum(int(r.metrics['n_stars'] or 0) for r in found)} stars")
        raw = source.raw(DETECTOR.id)
        peer, least = core_ms(lambda: by_peers(raw, Calibs()), arguments.sample)
        print(
            f"astropy, ccdproc, sep, galsim on {arguments.sample} of them: {peer / 1e3:.3f} core-s per CCD "
            f"[least {least / 1e3:.3f}], {peer / 1e3 / statistics.median(per_ccd):.1f} x; of {len(moves)} CCDs "
            f"{len(moves) * peer / 1e3:.0f} core-s"
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
