"""How long a frame takes while somebody scrolls through a night of a thousand exposures.

Run: ``python bench/bench_scroll.py [--exposures 1000] [--frames 300] [--camera LSSTCam]``

A display in a process of its own and a real Chromium that shows the Night page. The table is scrolled by some ten rows in
each animation frame, from the newest exposure to the oldest and back; then the same while an exposure changes four times a second. The time
from one frame to the next is the browser's own (``requestAnimationFrame``), drawn by its software renderer: a screen with a graphics card
is faster. Nothing moves first, for what the machine itself costs; its load is printed.
"""

import argparse
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from bench_display import percentile, serve
from playwright.sync_api import CDPSession, Page

from rapid.camera.store import load_camera
from rapid.dispatch.valkey import EmbeddedValkey
from tests.display.stage import DAY_OBS, Stage
from tests.support.browser import open_browser

SCROLL = """
async ([frames, step]) => {
  const box = document.querySelector('#scroll');
  const deltas = [];
  let down = true;
  let turns = 0;
  let before = await new Promise(requestAnimationFrame);
  for (let n = 0; n < frames; n += 1) {
    if (down && box.scrollTop + box.clientHeight >= box.scrollHeight - 1) { down = false; turns += 1; }
    else if (!down && box.scrollTop <= 0) { down = true; turns += 1; }
    box.scrollTop += down ? step : -step;
    const now = await new Promise(requestAnimationFrame);
    deltas.push(now - before);
    before = now;
  }
  return {deltas, turns, last: document.querySelector('#table tbody tr[data-href]')?.dataset.href ?? ''};
}
"""


def change_until(stage: Stage, stop: threading.Event, pace_s: float) -> None:
    """Finish detectors of one exposure after the other, until told to stop."""
    detectors = sorted(stage.camera.science_ids)
    seq_num = 90_000
    while not stop.is_set():
        seq_num += 1
        stage.post(seq_num, detectors[:8])
        for detector in detectors[:8]:
            stage.finish([detector])
            if stop.wait(pace_s):
                return


def cpu_of(page: Page) -> tuple[Callable[[], dict[str, float]], CDPSession]:
    """Return what tells the CPU time that the page's main thread has used so far, by kind [ms]."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def read() -> dict[str, float]:
        found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return {name: 1000 * found[f"{name}Duration"] for name in ("Task", "Script", "RecalcStyle", "Layout")}

    return read, session


def scroll(page: Page, what: str, frames: int, step: int) -> int:
    """Scroll, and print frame times and CPU time of a frame; return how often it turned round."""
    read, session = cpu_of(page)
    before = read()
    found = page.evaluate(SCROLL, [frames, step])
    used = {name: (value - before[name]) / frames for name, value in read().items()}
    session.detach()
    say(what, found["deltas"])
    parts = ", ".join(f"{name.lower()} {value:.1f}" for name, value in used.items() if name != "Task")
    print(f"{'':24} CPU of the page's main thread {used['Task']:.1f} ms a frame ({parts})")
    return int(found["turns"])


def say(what: str, deltas: list[float]) -> None:
    p50, p95, p99, most = (percentile(deltas, percent) for percent in (50, 95, 99, 100))
    slow = sum(delta > 50 for delta in deltas)
    print(
        f"{what:24} {len(deltas)} frames  p50 {p50:5.1f} ms  p95 {p95:5.1f} ms  p99 {p99:5.1f} ms  max {most:5.1f} ms"
        f"  over 50 ms: {slow}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--step", type=int, default=300, help="pixels a frame: some ten rows")
    parser.add_argument("--camera", default="LSSTCam")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedValkey(Path(name) / "valkey") as valkey:
        folder = Path(name)
        stage = Stage(load_camera(asked.camera), valkey.url, folder)
        stage.put_night(asked.exposures, day_obs=DAY_OBS)
        stop = threading.Event()
        process, address = serve(asked.camera, valkey.url, folder)
        try:
            with open_browser() as browser:
                page = browser.new_page(viewport={"width": 1600, "height": 900})
                page.goto(f"{address}/night/{DAY_OBS}")
                page.locator("#count", has_text=str(asked.exposures)).wait_for(timeout=120_000)
                print(f"{asked.exposures} exposures; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
                scroll(page, "nothing moves", 60, 0)
                turns = scroll(page, "scrolling", asked.frames, asked.step)
                changing = threading.Thread(target=change_until, args=(stage, stop, 0.25), daemon=True)
                changing.start()
                scroll(page, "scrolling, live", asked.frames, asked.step)
                rows = page.locator("#table tbody tr").count()
                print(f"turned round {turns} times; {rows} rows in the document; load {os.getloadavg()[0]:.1f}")
        finally:
            stop.set()
            process.terminate()
            process.wait(20)
            stage.close()


if __name__ == "__main__":
    main()
