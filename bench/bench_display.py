"""How soon a new result is on the screens of many viewers, and how soon a page is painted while they all look.

Run: ``python bench/bench_display.py [--viewers 50] [--exposures 20] [--camera LSSTCam]``

A display in a process of its own, an embedded Valkey, ``--viewers`` open streams in this process (as many as browsers
would hold), and one real Chromium that shows the Now page. A poster finishes detectors on the board at the pace of a
night that runs fast. Printed: from the moment the board has a result to the frame at a viewer, and to the number on the
screen (the browser's own clock, after the paint); and the first paint of the pages meanwhile. Nothing is simulated but
the results' numbers.
"""

import argparse
import asyncio
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from rapid.camera.store import load_camera
from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, WorkerSpec
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.results.store import open_results
from tests.support.browser import open_browser

DAY_OBS = 20261120
PAGES = ("/", f"/night/{DAY_OBS}", "/focus", "/calibrations", "/cluster", f"/log/{DAY_OBS}", "/requests", "/control")

WATCH = """
() => {
  window.seen = [];
  const note = () => requestAnimationFrame(() => {
    const text = document.querySelector('#pipeline .value span')?.textContent ?? '';
    const seq = document.querySelector('#seq')?.textContent ?? '';
    window.seen.push([Date.now(), seq, text]);
  });
  new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
}
"""
"""After each change, once it is painted: when, which exposure, how many detectors are done."""


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(round(percent / 100 * (len(ordered) - 1)), len(ordered) - 1)]


def say(name: str, values_s: list[float], limit_ms: float) -> None:
    if not values_s:
        print(f"{name:44} nothing measured")
        return
    p50, p99, most = (1000 * percentile(values_s, p) for p in (50, 99, 100))
    print(
        f"{name:44} n {len(values_s):6}  p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  max {most:7.1f} ms  (limit {limit_ms:.0f} ms)"
    )


@functools.lru_cache(maxsize=256)
def finished_in(line: bytes) -> tuple[tuple[int, int], ...]:
    """Return exposure and detector of what a message says has finished.

    Read once for all viewers: fifty browsers have cores of their own, this process has one.
    """
    updates = json.loads(line[6:])["exposures"]
    return tuple(
        (update["row"]["exposure_id"], cell["detector"])
        for update in updates
        for cell in update["cells"]
        if cell["state"] == "finished"
    )


class Viewer:
    """One open stream: when each detector's number came."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname, parts.port
        self.came: dict[tuple[int, int], float] = {}

    async def run(self, ready: asyncio.Semaphore) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**24)
        writer.write(b"GET /api/events HTTP/1.1\r\nHost: here\r\nAccept: text/event-stream\r\n\r\n")
        ready.release()
        try:
            while line := await reader.readline():
                if line.startswith(b"data: ") and b'"exposures"' in line[:40]:
                    now = time.time()  # noqa: TID251 - the same clock as the poster's
                    for key in finished_in(line):
                        self.came.setdefault(key, now)
        finally:
            writer.close()


class Poster:
    """Posts exposures and finishes their detectors, noting when the board had each."""

    def __init__(self, camera, redis_url: str, results, *, pace_s: float) -> None:
        self._camera = camera
        self._board = Board(redis_url, camera.name)
        self._results = results
        self._pace_s = pace_s
        self.done: dict[tuple[int, int], float] = {}
        self.whole: dict[int, float] = {}

    def night(self, n_exposures: int) -> None:
        detectors = sorted(self._camera.science_ids)
        pause = threading.Event()
        for seq_num in range(1, n_exposures + 1):
            key = BatchKey(exposure_id=DAY_OBS * 100_000 + seq_num, pipeline="quicklook")
            info = {"begin": "2026-11-21T03:00:00", "exposure_time_s": 30.0, "physical_filter": "r_57"}
            raws = {number: f"/raws/{seq_num}/{number}.fits" for number in detectors}
            self._board.post(
                BatchSpec(
                    key=key,
                    camera=self._camera.name,
                    image_type="science",
                    expected=frozenset(detectors),
                    raws=raws,
                    info=info,
                )
            )
            while jobs := self._board.claim_many(WorkerSpec(worker_id="poster"), 32, timeout_s=0.01):
                metrics = {"psf_fwhm_arcsec": 0.8, "psf_e1": 0.01, "psf_e2": 0.02, "n_stars": 200, "sky_level_e": 400.0}
                self._board.complete_many([(job, metrics | {"n_stars": job.detector}) for job in jobs])
                now = time.time()  # noqa: TID251 - compared with a browser's clock on the same machine
                for job in jobs:
                    self.done[key.exposure_id, job.detector] = now
                self.whole[seq_num] = now
                pause.wait(self._pace_s)


def serve(camera: str, redis_url: str, folder: Path) -> tuple[subprocess.Popen, str]:
    """Start a display in a process of its own; return it and its address."""
    command = [
        sys.executable,
        "-m",
        "rapid",
        "display",
        "--camera",
        camera,
        "--redis",
        redis_url,
        "--data",
        str(folder),
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=(folder / "display.log").open("w"), text=True)
    return process, process.stdout.readline().strip().rstrip("/")


def run_viewers(address: str, n: int) -> tuple[list[Viewer], threading.Thread, "asyncio.AbstractEventLoop"]:
    loop, viewers = asyncio.new_event_loop(), [Viewer(address) for _ in range(n)]
    connected = threading.Event()

    async def main() -> None:
        ready = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(viewer.run(ready)) for viewer in viewers]
        for _ in viewers:
            await ready.acquire()
        connected.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run() -> None:
        asyncio.set_event_loop(loop)
        main_task = loop.create_task(main())
        loop.run_until_complete(main_task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert connected.wait(30.0), "the viewers did not connect"
    return viewers, thread, loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--exposures", type=int, default=20)
    parser.add_argument("--camera", default="LSSTCam")
    parser.add_argument("--pace", type=float, default=0.25, help="seconds between groups of 32 results")
    asked = parser.parse_args()
    camera = load_camera(asked.camera)
    with tempfile.TemporaryDirectory() as name, EmbeddedValkey(Path(name) / "valkey") as valkey:
        folder = Path(name)
        results = open_results(str(folder / "results.sqlite"))
        poster = Poster(camera, valkey.url, results, pace_s=asked.pace)
        poster.night(1)  # so that the pages have something to paint
        process, address = serve(camera.name, valkey.url, folder)
        try:
            viewers, _, _ = run_viewers(address, asked.viewers)
            with open_browser() as browser:
                page = browser.new_page(viewport={"width": 1600, "height": 900})
                page.goto(address)
                page.locator("#live[data-link=live]").wait_for()
                page.evaluate(WATCH)
                night = threading.Thread(target=poster.night, args=(asked.exposures,), daemon=True)
                night.start()
                other = browser.new_page(viewport={"width": 1600, "height": 900})
                paints: dict[str, list[float]] = {path: [] for path in PAGES}
                while night.is_alive():
                    for path in PAGES:
                        other.goto(address + path, wait_until="load")
                        found = other.evaluate(
                            "() => new Promise(done => { const look = () => { const e = performance.getEntriesByName('first-contentful-paint')[0];"
                            " e ? done(e.startTime) : requestAnimationFrame(look); }; look(); })"
                        )
                        paints[path].append(found / 1000)
                page.wait_for_timeout(1000)
                seen = page.evaluate("() => window.seen")
        finally:
            process.terminate()
            process.wait(20)
            results.close()
        report(viewers, poster, seen, paints, n_detectors=len(camera.science_ids))


def report(viewers, poster, seen, paints, *, n_detectors: int) -> None:
    first_run = {key for key in poster.done if key[0] == DAY_OBS * 100_000 + 1}
    frames = [
        viewer.came[key] - at
        for viewer in viewers
        for key, at in poster.done.items()
        if key in viewer.came and key not in first_run
    ]
    lost = sum(1 for viewer in viewers for key in poster.done if key not in viewer.came and key not in first_run)
    screen = []
    for seq_num, at in poster.whole.items():
        shown = f"{n_detectors}/{n_detectors}"
        when = next(
            (ms / 1000 for ms, seq, text in seen if seq == f"{seq_num:06d}" and text == shown and ms / 1000 > at - 5),
            None,
        )
        if when is not None and seq_num > 1:
            screen.append(max(when - at, 0.0))
    print(
        f"{len(viewers)} viewers, {len(poster.whole)} exposures of {n_detectors} detectors; {lost} results did not reach a viewer"
    )
    say("result on the board to a viewer's stream", frames, 200)
    say("last result of an exposure to the screen", screen, 200)
    for path, values in paints.items():
        say(f"first paint of {path}", values, 1000)
    every = [value for values in paints.values() for value in values]
    print(f"median first paint of all pages {1000 * statistics.median(every):.0f} ms")


if __name__ == "__main__":
    main()
