"""A focus sweep: the summary has the fit at once, its plot comes later and shows the very same points."""

import subprocess
import sys

import pytest

from rapid.errors import NotFoundError
from rapid.gather.studio_child import Artist
from rapid.gather.studio_models import PlotTask
from rapid.gather.sweep import POINTS, SweepPoints, add_focus_sweep
from rapid.products.store import open_products
from rapid.results.store import open_results
from tests.support.records import make_summary

BEST_MM, Z_MM = 0.03, (-0.05, -0.01, 0.03, 0.07, 0.11)


@pytest.fixture
def stores(tmp_path):
    results, products = open_results(str(tmp_path / "r.sqlite")), open_products(str(tmp_path / "p"))
    yield results, products
    results.close()


def point(seq_num, **changes):
    z_mm = Z_MM[seq_num - 1]
    return make_summary(
        seq_num,
        image_type="focus",
        info={"group_id": "sweep-1", "focus_z_mm": z_mm},
        metrics={"psf_fwhm_arcsec_median": (0.64 + 40.0 * (z_mm - BEST_MM) ** 2) ** 0.5},
        **changes,
    )


def take_sweep(results, products, n):
    for seq_num in range(1, n + 1):
        summary = point(seq_num)
        add_focus_sweep(summary, results, products)
        results.put_summary(summary)
    return summary


def test_the_fit_is_there_at_once_and_no_picture_is_drawn_for_it(stores):
    results, products = stores
    summary = take_sweep(results, products, 5)
    assert summary.metrics["best_focus_mm"] == pytest.approx(BEST_MM, abs=1e-6)
    assert list(summary.products) == [POINTS]
    kept = SweepPoints.model_validate_json(products.get(summary.products[POINTS]))
    assert kept.exposures == [2026112000000 + n for n in range(1, 6)]
    assert kept.z_mm == list(Z_MM)


def test_the_plot_is_of_the_points_that_were_fitted_then(stores, monkeypatch):
    results, products = stores
    take_sweep(results, products, 4)
    late = point(5)
    add_focus_sweep(late, results, products)
    results.put_summary(late)  # it came before the plot of the fourth was begun
    drawn = []
    monkeypatch.setattr(
        "rapid.gather.studio_child.plot_focus_sweep", lambda z, _fwhm, fit, **_: drawn.append((z, fit)) or b"png"
    )
    task = {"camera": "LSSTCam", "run": "prompt", "pipeline": "quicklook", "version": 1}
    made = Artist(results, products).do(PlotTask(exposure=2026112000004, **task))
    assert products.get(made["focus_sweep"]) == b"png"
    ((z_mm, fit),) = drawn
    assert z_mm == list(Z_MM[:4])
    stored = results.latest_summary("LSSTCam", 2026112000004)
    assert fit.best_focus_mm == stored.metrics["best_focus_mm"]
    assert stored.products["focus_sweep"] == made["focus_sweep"]


def test_a_sweep_with_too_few_points_has_neither(stores):
    results, products = stores
    summary = take_sweep(results, products, 3)
    assert summary.metrics["n_sweep_points"] == 3
    assert summary.products == {}


def test_a_plot_whose_points_are_gone_is_an_error_that_names_them(stores):
    results, products = stores
    summary = take_sweep(results, products, 4)
    products.delete(summary.products[POINTS])
    task = PlotTask(camera="LSSTCam", exposure=summary.exposure, run="prompt", pipeline="quicklook", version=1)
    with pytest.raises(NotFoundError, match="focus_sweep_points"):
        Artist(results, products).do(task)


def test_whoever_makes_summaries_never_loads_matplotlib():
    code = "import sys, rapid.gather.role, rapid.gather.wavefront; print('matplotlib' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.strip() == "False"
