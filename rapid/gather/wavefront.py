"""Add the joint wavefront to a summary: corners of one exposure, or detectors of an intra/extra pair of exposures.

The fits take seconds per pair and run in a program of their own, so that other gathers go on; it is ended at its time
limit. What they start from, the donuts that workers cut out and fitted alone, lies in the products store.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

import structlog

from payloads.focus.joint import JointInput, JointReport, SiteInput
from payloads.focus.wavefront import NOLL
from payloads.focus.wavefront_payload import STAMPS
from rapid.camera.models import Purpose
from rapid.camera.store import load_camera
from rapid.errors import PayloadRetryError
from rapid.exposure.models import ImageType
from rapid.gather.sweep import focus_position_mm, group_of
from rapid.line_process import ONE_THREAD
from rapid.products.naming import summary_key
from rapid.products.store import ProductsStore
from rapid.results.models import DetectorResult, DetectorState, ExposureSummary, Scalar
from rapid.results.store import ResultsStore

log = structlog.get_logger()

SLACK_S = 60.0
"""Beyond the budget for the fits: starting Python, the last pair, the plots."""
MARK = "n_wavefronts_median"
"""The metric that tells a wavefront pipeline's summary from all others."""
UNDER_WAY = frozenset({DetectorState.QUEUED, DetectorState.RUNNING})
MAX_PARTNER_STEP = 2
"""An intra- and an extra-focal exposure without a common group are at most so many numbers apart."""

Stamps = dict[int, str]
"""By detector, the key of its file of fitted donuts."""


def stamps_of(results: Iterable[DetectorResult]) -> Stamps:
    """Return where the fitted donuts of an exposure's detectors are."""
    return {result.detector: result.products[STAMPS] for result in results if STAMPS in result.products}


def corner_sites(camera_name: str, stamps: Stamps) -> dict[str, tuple[str, str]]:
    """Return, by raft, the files of the extra- and the intra-focal half of every wavefront sensor that has both."""
    halves: dict[str, dict[bool, str]] = {}
    camera = load_camera(camera_name)
    for number, key in stamps.items():
        detector = camera.by_id[number]
        if detector.purpose is Purpose.WAVEFRONT and detector.z_mm:
            # Heights count against the light: the half at -1.5 mm is the extra-focal one.
            halves.setdefault(detector.raft, {})[detector.z_mm < 0] = key
    return {raft: (both[True], both[False]) for raft, both in sorted(halves.items()) if len(both) == 2}


def pair_sites(camera_name: str, extra: Stamps, intra: Stamps) -> dict[str, tuple[str, str]]:
    """Return, by detector, the files of an extra- and an intra-focal exposure where both have one."""
    camera = load_camera(camera_name)
    return {
        camera.by_id[number].name: (extra[number], intra[number])
        for number in sorted(extra.keys() & intra.keys())
        if camera.by_id[number].purpose is Purpose.SCIENCE
    }


def choose_partner(summary: ExposureSummary, others: Iterable[ExposureSummary]) -> ExposureSummary | None:
    """Return the exposure on the other side of focus that belongs to a donut exposure, None if there is none.

    Of the same group the nearest one; without a group, the nearest of the neighbours. FOCUSZ tells the side.
    """
    z_mm = focus_position_mm(summary)
    if not z_mm:
        return None
    found = []
    for other in others:
        other_mm = focus_position_mm(other)
        same_group = summary.info.get("group_id") == other.info.get("group_id")
        grouped = same_group and summary.info.get("group_id") is not None
        step = abs(other.exposure - summary.exposure)
        if (
            other.exposure != summary.exposure
            and other_mm
            and (other_mm > 0) != (z_mm > 0)
            and other.info.get("physical_filter") == summary.info.get("physical_filter")
            and (grouped or step <= MAX_PARTNER_STEP)
        ):
            found.append((not grouped, step, other))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


class WavefrontStep:
    """The summary step.

    Parameters
    ----------
    budget_s
        No further pair is begun after this.
    n_pairs
        Pairs of donuts per corner or detector.
    """

    def __init__(self, *, budget_s: float = 120.0, n_pairs: int = 3) -> None:
        self.__name__ = "joint_wavefront"
        self._budget_s = budget_s
        self._n_pairs = n_pairs
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def __call__(self, summary: ExposureSummary, results: ResultsStore, products: ProductsStore) -> None:
        """Add ``wavefront_*`` metrics, the report and two plots to a summary that has fitted donuts.

        Does nothing for other summaries, while one side of focus is missing, or while detectors are still being fitted:
        another summary comes when they are.
        """
        if MARK not in summary.metrics or any(status.state in UNDER_WAY for status in summary.detectors.values()):
            return
        sites = self._sites(summary, results)
        if not sites:
            return
        title = f"Wavefront, {summary.day_obs} {summary.seq_num}"
        with tempfile.TemporaryDirectory(prefix="rapid-wavefront-") as name:
            folder = Path(name)
            inputs = []
            for place, (site, keys) in enumerate(sites.items()):
                files = []
                for side, key in zip(("extra", "intra"), keys, strict=True):
                    path = folder / f"{place}.{side}.fits"
                    path.write_bytes(products.get(key))
                    files.append(path)
                inputs.append(SiteInput(name=site, extra=files[0], intra=files[1]))
            request = JointInput(
                title=title, sites=inputs, n_pairs=self._n_pairs, budget_s=self._budget_s, folder=folder
            )
            report = self._run(request)
            if report is None:
                summary.metrics["wavefront_note"] = "the joint fit failed; see the gather's log"
                return
            self._keep(summary, products, report, folder)

    def _sites(self, summary: ExposureSummary, results: ResultsStore) -> dict[str, tuple[str, str]]:
        """Return the sites of an exposure, or of it and its partner."""

        def stamps(exposure: int) -> Stamps:
            return stamps_of(
                results.results(exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline)
            )

        if summary.image_type != ImageType.CWFS.value:
            return corner_sites(summary.camera, stamps(summary.exposure))
        night = results.summaries(summary.camera, day_obs=summary.day_obs, run=summary.run, limit=10_000)
        same = [s for s in night if s.pipeline == summary.pipeline and s.image_type == summary.image_type]
        partner = choose_partner(summary, [*group_of(summary, results), *same])
        if partner is None:
            return {}
        summary.metrics["wavefront_partner"] = partner.exposure
        mine, other = stamps(summary.exposure), stamps(partner.exposure)
        extra, intra = (mine, other) if (focus_position_mm(summary) or 0.0) > 0 else (other, mine)
        return pair_sites(summary.camera, extra, intra)

    def stop(self) -> None:
        """End the fits that are under way; their gathers are given back, for whoever comes next. From any thread."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _run(self, request: JointInput) -> JointReport | None:
        """Run the fits in a process of their own; None if it fails or takes too long.

        Raises
        ------
        PayloadRetryError
            Raised if `stop` ended it.
        """
        asked, answer, errors = (request.folder / name for name in ("request.json", "report.json", "errors.txt"))
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        with answer.open("wb") as out, errors.open("wb") as err, self._lock:
            if self._stopped:
                raise PayloadRetryError("the gather stopped before its wavefront was fitted")
            process = subprocess.Popen(  # noqa: S603 - our own program
                # Its input stays open as long as we live, and it ends when that does.
                [sys.executable, "-m", "payloads.focus.joint", str(asked), "--while-input"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, **ONE_THREAD},
            )
            self._running.add(process)
        try:
            status = process.wait(request.budget_s + SLACK_S)
        except subprocess.TimeoutExpired:
            log.error("joint wavefront took too long", limit_s=request.budget_s + SLACK_S)
            return None
        finally:
            with process:
                process.kill()
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise PayloadRetryError("the gather stopped while its wavefront was fitted")
        if status != 0:
            log.error("joint wavefront failed", status=status, error=errors.read_text(errors="replace")[-2000:])
            return None
        return JointReport.model_validate_json(answer.read_bytes())

    @staticmethod
    def _keep(summary: ExposureSummary, products: ProductsStore, report: JointReport, folder: Path) -> None:
        summary.metrics |= wavefront_numbers(report)
        key = summary_key(summary, kind="wavefront", extension="json")
        products.put(key, report.model_dump_json().encode(), content_type="application/json")
        summary.products["wavefront"] = key
        for kind in ("wavefront", "wavefront_donuts"):
            path = folder / f"{kind}.png"
            if path.exists():
                key = summary_key(summary, kind=kind, extension="png")
                products.put(key, path.read_bytes(), content_type="image/png")
                summary.products[f"{kind}_plot"] = key


def wavefront_numbers(report: JointReport) -> dict[str, Scalar]:
    """Return what of a report goes into the summary's metrics."""
    numbers: dict[str, Scalar] = {
        "wavefront_n_pairs": report.n_pairs,
        "wavefront_n_pairs_possible": report.n_pairs_possible,
        "wavefront_n_sites": len(report.sites),
    }
    if report.notes:
        numbers["wavefront_note"] = "; ".join(report.notes[:5])
    field = report.field
    if field is None:
        return numbers
    numbers["wavefront_focus_offset_um"] = field.focus_offset_um
    numbers["wavefront_focus_offset_error_um"] = field.focus_offset_error_um
    numbers["wavefront_field_fwhm_arcsec"] = field.aberration_fwhm_arcsec
    for k, j in enumerate(NOLL):
        numbers[f"wavefront_z{j}_um"] = field.coefficients_um[0][k]
        numbers[f"wavefront_z{j}_error_um"] = field.errors_um[0][k]
    for site in report.sites if len(report.sites) <= 9 else []:
        numbers[f"wavefront_{site.name.lower()}_fwhm_arcsec"] = site.aberration_fwhm_arcsec
    return numbers
