"""The demonstration: a simulated night through the whole system, as `rapid up` runs it.

Head, two workers or more, gather and display run as processes of their own on an embedded Valkey; this
process plays the camera and watches.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rapid.dispatch.board import AsyncBoard
from rapid.errors import ConfigurationError, StoreError
from rapid.head.decide import MIN_TO_BUILD
from rapid.results.models import ExposureSummary
from rapid.results.store import open_results
from rapid.wiring.camera import adopt_camera
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor
from replay.plan import NightPlan, PlannedExposure, load_plan
from replay.progress import ExposureProgress, NightProgress
from replay.simulate import NightSimulator, directory_sink

NIGHTS = Path(__file__).parent / "nights"
MARKER = ".rapid-demo"
"""Lies in a folder that a demo made: only such a folder is emptied by the next one."""

WAVEFRONT = "wavefront"
"""How the pipelines begin whose summaries get a line of their own at the end."""

MAX_OPEN = 3
"""Exposures in flight before the camera waits: the demo shows a system that keeps up on any machine."""

STALL_S = 180.0
"""A demo in which nothing finishes for this long has failed."""


def prepare_folder(folder: Path) -> None:
    """Make the demo's folder, empty.

    Raises
    ------
    ConfigurationError
        Raised for a folder that holds something a demo did not make.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise ConfigurationError("folder", f"{folder} holds files that no demo made")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def progress_table(progress: NightProgress, plan: NightPlan, url: str, queued: int) -> Table:
    """Return the live view of a night."""
    elapsed = max(progress.elapsed_s(), 1e-3)
    table = Table.grid(padding=(0, 2))
    table.add_row("display", url)
    table.add_row("camera", f"{plan.camera}, night of {plan.day_obs}")
    table.add_row("exposures", f"{progress.n_complete} of {len(progress.exposures)} complete, {progress.n_open} open")
    done, total = progress.n_finished, progress.n_detectors
    bar = "█" * (40 * done // max(total, 1))
    table.add_row("detectors", f"{bar:<40} {done} of {total}")
    table.add_row("queue", f"{queued} waiting, {progress.n_delivered} raws delivered")
    table.add_row("rate", f"{done / elapsed:.2f} detectors/s, {elapsed:.0f} s")
    if progress.builds:
        names = ", ".join(
            f"{batch.split('.')[-1].removeprefix('build_')} {'✓' if is_done else '…'}"
            for batch, is_done in progress.builds.items()
        )
        table.add_row("calibs", names)
    current = next((e for e in reversed(progress.exposures.values()) if e.n_delivered), None)
    if current:
        table.add_row("newest", f"{current.label}: {current.n_finished} of {current.n_detectors} detectors")
    return table


def _number(value: object, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) and not isinstance(value, bool) else "—"


def summary_table(exposures: list[PlannedExposure], summaries: dict[int, ExposureSummary]) -> Table:
    """Return the table that ends a demo."""
    table = Table(title="The night", title_justify="left")
    for name in (
        "seq_num",
        "type",
        "filter",
        "detectors",
        "complete",
        "version",
        "FWHM [″]",
        "e",
        "sky [e⁻]",
        "stars",
        "level [e⁻]",
    ):
        table.add_column(name, justify="left" if name in {"type", "filter"} else "right")
    for exposure in exposures:
        found = summaries.get(exposure.exposure_id)
        if found is None:
            table.add_row(
                str(exposure.seq_num), exposure.image_type.value, exposure.physical_filter or "", "none", "NO"
            )
            continue
        metrics = found.metrics
        table.add_row(
            str(exposure.seq_num),
            exposure.image_type.value,
            exposure.physical_filter or "",
            f"{found.n_finished}/{found.n_expected}",
            "yes" if found.is_complete else "NO",
            str(found.version),
            _number(metrics.get("psf_fwhm_arcsec_median")),
            _number(metrics.get("psf_e_median"), 3),
            _number(metrics.get("sky_level_e_median"), 0),
            _number(metrics.get("n_stars_total"), 0),
            _number(metrics.get("image_median_electron_median"), 1),
        )
    return table


class Demo:
    """One demonstration."""

    def __init__(self, plan: NightPlan, folder: Path, *, n_workers: int, port: int, console: Console) -> None:
        self.plan = plan
        camera = adopt_camera(plan.camera)
        self.folder = folder
        self.console = console
        self.settings = make_settings(
            camera=camera.name, raws=str((folder / "raws").absolute()), data=folder / "data", port=port
        )
        self.supervisor = Supervisor(self.settings, n_workers=n_workers)
        self.simulator = NightSimulator(
            plan,
            directory_sink(folder / "raws"),
            truth_dir=folder / "truth",
            n_threads=max((os.cpu_count() or 2) // 2, 1),
        )
        self.progress = NightProgress(
            {
                exposure.exposure_id: ExposureProgress(
                    exposure.exposure_id,
                    f"{exposure.seq_num:06d} {exposure.image_type.value}",
                    len(exposure.detectors),
                )
                for exposure in self.simulator.exposures
            }
        )
        self._changed = threading.Condition()
        self._stop = threading.Event()

    def _feed(self) -> None:
        """Play the camera: never more than a few exposures ahead of the system."""
        night_began = False
        for exposure in self.simulator.exposures:
            if exposure.sees_sky and not night_began:
                night_began = True
                self._wait_until(self._afternoon_is_over)
            self._wait_until(lambda: self.progress.n_open < MAX_OPEN)
            for _ in self.simulator.take(exposure):
                if self._stop.is_set():
                    return
                with self._changed:
                    self.progress.delivered(exposure.exposure_id)

    def _afternoon_is_over(self) -> bool:
        """Whether the calibs of every calibration sequence are built."""
        sequences = {
            e.group_id for e in self.simulator.exposures if e.image_type.is_calibration and e.group_size >= MIN_TO_BUILD
        }
        return len(self.progress.builds) >= len(sequences) and self.progress.builds_ended

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or condition(), timeout=STALL_S)

    async def _follow(self, board: AsyncBoard, live: Live | None) -> bool:
        """Take in events until every exposure is complete; False if nothing happens for too long."""
        last = "0"
        loop = asyncio.get_running_loop()
        moved_at = loop.time()
        queued = 0
        while True:
            with contextlib.suppress(StoreError):
                events = await board.events(last, timeout_s=1.0)
                if events:
                    last, moved_at = events[-1].event_id, loop.time()
                with self._changed:
                    for event in events:
                        before = self.progress.n_complete
                        self.progress.take(event)
                        if live is None and self.progress.n_complete != before:
                            self._print_line(event.exposure_id)
                    self._changed.notify_all()
                status = await board.status()
                queued = sum(queue.current + queue.backlog for queue in status.queues)
            if live is not None:
                live.update(progress_table(self.progress, self.plan, self.supervisor.display_url, queued), refresh=True)
            if self.progress.n_complete == len(self.progress.exposures) and self.progress.builds_ended:
                return self.progress.builds_complete
            if self._stop.is_set() or loop.time() - moved_at > STALL_S:
                return False

    def _print_line(self, exposure_id: int | None) -> None:
        exposure = self.progress.exposures.get(exposure_id or 0)
        if exposure is not None:
            self.console.print(
                f"{self.progress.elapsed_s():6.1f} s  {exposure.label:16} complete "
                f"({self.progress.n_complete} of {len(self.progress.exposures)}; "
                f"{self.progress.n_finished} detectors done)"
            )

    async def _play(self) -> bool:
        board = AsyncBoard(self.supervisor.redis_url, self.simulator.camera.name)
        feeder = threading.Thread(target=self._feed, name="camera", daemon=True)
        feeder.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        try:
            if self.console.is_terminal:
                with Live(console=self.console, auto_refresh=False) as live:
                    return await self._follow(board, live)
            return await self._follow(board, None)
        finally:
            self._stop.set()
            with self._changed:
                self._changed.notify_all()
            feeder.join(timeout=30)
            await board.close()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def run(self, *, leave: bool) -> bool:
        """Play the night; return whether every exposure reached a complete summary.

        Parameters
        ----------
        leave
            End after the night; else keep the display until Ctrl-C.
        """
        try:
            self.supervisor.start()
            self.console.print(f"display  {self.supervisor.display_url}")
            self.console.print(f"folder   {self.folder}")
            is_whole = asyncio.run(self._play())
            self._show_end()
            if not leave:
                self.console.print(f"\nThe display stays at {self.supervisor.display_url} until Ctrl-C.")
                ended = threading.Event()
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, lambda *_: ended.set())
                ended.wait()
            return is_whole
        finally:
            self.simulator.close()
            self.supervisor.stop()

    def _show_end(self) -> None:
        results = open_results(self.settings.results)
        summaries = results.summaries(self.simulator.camera.name, day_obs=self.plan.day_obs, limit=10_000)
        results.close()
        by_exposure = {
            s.exposure: s
            for s in summaries
            if not s.pipeline.startswith("build_") and not s.pipeline.startswith(WAVEFRONT)
        }
        self.console.print(summary_table(self.simulator.exposures, by_exposure))
        sweeps = [s for s in by_exposure.values() if s.metrics.get("best_focus_mm") is not None]
        if sweeps:
            newest = max(sweeps, key=lambda s: s.exposure)
            self.console.print(
                f"best focus {_number(newest.metrics['best_focus_mm'], 4)} ± "
                f"{_number(newest.metrics.get('best_focus_error_mm'), 4)} mm (truth {self.plan.best_focus_mm:.4f} mm)"
            )
        for found in summaries:
            if found.pipeline.startswith(WAVEFRONT) and "wavefront_z4_um" in found.metrics:
                self.console.print(
                    f"wavefront of {found.metrics['wavefront_n_pairs']} pairs of donuts: aberrations "
                    f"{_number(found.metrics['wavefront_field_fwhm_arcsec'])}″, focus "
                    f"{_number(found.metrics['wavefront_focus_offset_um'], 1)} ± "
                    f"{_number(found.metrics['wavefront_focus_offset_error_um'], 1)} µm"
                )
        latencies = [
            e.complete_s - e.delivered_s
            for e in self.progress.exposures.values()
            if e.complete_s is not None and e.delivered_s is not None
        ]
        elapsed = self.progress.elapsed_s()
        self.console.print(
            f"{self.progress.n_complete} of {len(self.progress.exposures)} exposures complete, "
            f"{self.progress.n_finished} detectors in {elapsed:.0f} s ({self.progress.n_finished / elapsed:.2f} /s), "
            f"median {sorted(latencies)[len(latencies) // 2]:.1f} s from last raw to summary"
            if latencies
            else "no exposure was completed"
        )


def run_demo(*, plan_path: Path | None, folder: Path, workers: int, port: int, leave: bool) -> bool:
    """Run the demonstration; return whether every exposure reached a complete summary."""
    prepare_folder(folder)
    plan = load_plan(plan_path or NIGHTS / "demo.yaml")
    # A log is read with long lines; a terminal has its own width.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    return Demo(plan, folder, n_workers=workers, port=port, console=console).run(leave=leave)
