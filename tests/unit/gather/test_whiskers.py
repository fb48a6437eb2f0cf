"""PSF maps: one whisker a detector or a grid on each, turned as the detector lies."""

import json
import math

import numpy as np
import pytest

from rapid.camera.store import load_camera
from rapid.gather.plots import plot_map, plot_whiskers
from rapid.gather.whiskers import grid_of, make_psf_map
from rapid.products.store import open_products
from tests.support.records import make_result

LSSTCAM = load_camera("LSSTCam")
INFO = {"azimuth_deg": 119.0, "elevation_deg": 68.0, "rotator_angle_deg": 20.0}
METRICS = {"psf_fwhm_arcsec": 0.8, "psf_e1": 0.1, "psf_e2": 0.02, "n_psf_stars": 40}


@pytest.fixture
def products(tmp_path):
    return open_products(str(tmp_path))


def stars(n=400, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.uniform(0, 4072, n).tolist(),
        "y": rng.uniform(0, 4000, n).tolist(),
        "fwhm_arcsec": [0.8] * n,
        "e1": [0.1] * n,
        "e2": [0.02] * n,
        "is_psf_star": [True] * (n - 50) + [False] * 50,
    }


def with_stars(products, table, *, seq_num=1, detector=94, camera="LSSTCam"):
    key = f"{camera}/{seq_num}/{detector}.stars.json"
    products.put(key, table if isinstance(table, bytes) else json.dumps(table).encode())
    return make_result(seq_num, detector, camera=camera, metrics=METRICS, products={"stars": key})


def test_a_single_detector_gets_a_grid_and_a_whole_camera_a_whisker_each(products):
    one = make_psf_map(
        load_camera("LATISS"), [with_stars(products, stars(3000), detector=0, camera="LATISS")], products, {}
    )
    assert len(one.whiskers) == grid_of(1) ** 2 == 64
    assert sum(w.n_stars for w in one.whiskers) == 2950, "stars that are no PSF stars were used"
    many = make_psf_map(LSSTCAM, [make_result(1, d, metrics=METRICS) for d in range(189)], products, INFO)
    assert len(many.whiskers) == 189
    assert all(w.n_stars == 40 for w in many.whiskers)


def test_whiskers_turn_with_their_detectors_and_keep_their_length(products):
    results = [make_result(1, number, metrics=METRICS) for number in range(205)]
    found = {w.detector: w for w in make_psf_map(LSSTCAM, results, products, INFO).whiskers}
    for number, whisker in found.items():
        sign = -1 if LSSTCAM.by_id[number].n_quarter % 2 else 1
        assert (whisker.e1, whisker.e2) == pytest.approx((sign * 0.1, sign * 0.02))
        assert math.hypot(whisker.e1_altaz, whisker.e2_altaz) == pytest.approx(math.hypot(0.1, 0.02))


@pytest.mark.parametrize(
    "table",
    [b"{", b"[]", b'{"x": [1], "y": [2]}', json.dumps({**stars(5), "e1": ["no number"] * 5}).encode()],
    ids=["cut short", "no table", "columns missing", "words for numbers"],
)
def test_a_star_table_that_cannot_be_read_leaves_the_detectors_medians(products, table):
    result = with_stars(products, table, detector=4, camera="LSSTComCam")
    (whisker,) = make_psf_map(load_camera("LSSTComCam"), [result], products, INFO).whiskers
    assert whisker.fwhm_arcsec == pytest.approx(0.8)


def test_detectors_without_a_psf_are_passed_over(products):
    results = [make_result(1, 94, metrics={"psf_fwhm_arcsec": None}), make_result(1, 95, metrics={})]
    assert make_psf_map(LSSTCAM, results, products, {}).whiskers == []


def test_plots_are_pictures_and_the_same_again(products):
    psf_map = make_psf_map(LSSTCAM, [make_result(1, d, metrics=METRICS) for d in (0, 94, 200)], products, INFO)
    for is_altaz in (False, True):
        drawn = plot_whiskers(LSSTCAM, psf_map, title="night", is_altaz=is_altaz)
        assert drawn.startswith(b"\x89PNG")
        assert drawn == plot_whiskers(LSSTCAM, psf_map, title="night", is_altaz=is_altaz)
    assert plot_map(LSSTCAM, {94: 0.8}, title="one detector", label="FWHM").startswith(b"\x89PNG")
    assert plot_map(LSSTCAM, {}, title="none", label="FWHM").startswith(b"\x89PNG")


def test_without_a_zenith_there_is_no_alt_az_plot(products):
    psf_map = make_psf_map(LSSTCAM, [make_result(1, 94, metrics=METRICS)], products, {})
    assert psf_map.whiskers[0].e1_altaz is None
    with pytest.raises(ValueError, match="zenith"):
        plot_whiskers(LSSTCAM, psf_map, title="", is_altaz=True)
