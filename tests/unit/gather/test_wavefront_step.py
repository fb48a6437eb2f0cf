"""The joint wavefront in a summary: which donuts belong together, and what becomes of them."""

import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

from payloads.focus.joint import JointReport
from payloads.focus.optics import donut_factory, intrinsic_zernikes_m
from payloads.focus.stamps import DonutFile, FittedDonut, to_fits
from payloads.focus.wavefront import NOLL, DonutStamp, bin_stamp
from rapid.camera.store import load_camera
from rapid.errors import PayloadRetryError
from rapid.gather import wavefront
from rapid.gather.wavefront import WavefrontStep, choose_partner, corner_sites, pair_sites
from rapid.products.store import open_products
from rapid.results.models import DetectorState, DetectorStatus
from rapid.results.store import open_results
from tests.support.records import make_result, make_summary

LSSTCAM = load_camera("LSSTCam")
TRUTH_UM = np.zeros(len(NOLL))
TRUTH_UM[[0, 3, 7]] = 0.2, -0.15, 0.1  # Z4, Z7, Z11


def render_stamp(*, defocus_mm=0.0, camera_mm=0.0, seed=1) -> DonutStamp:
    import danish

    angle = np.deg2rad(1.1)
    reference = intrinsic_zernikes_m(
        "LSSTCam", band="r", defocus_mm=defocus_mm, camera_mm=camera_mm, thx_rad=angle, thy_rad=angle
    )
    model = danish.SingleDonutModel(
        donut_factory("LSSTCam", pixel_m=10e-6), z_ref=reference, z_terms=NOLL, thx=angle, thy=angle, npix=183
    )
    light = model.model(3e6, 0.0, 0.0, 0.9, TRUTH_UM * 1e-6)
    noisy = light + np.random.default_rng(seed).normal(size=light.shape) * np.sqrt(np.maximum(light, 0) + 500.0)
    return DonutStamp(bin_stamp(noisy, 2), 2000.0, 20e-6, 0.4, defocus_mm, angle, angle, camera_mm)


class Night:
    """Stores with the fitted donuts of some detectors."""

    def __init__(self, folder):
        self.results = open_results(str(folder / "results.sqlite"))
        self.products = open_products(str(folder / "products"))

    def add(self, seq_num: int, name: str, stamp: DonutStamp, **facts) -> None:
        detector = LSSTCAM.by_name[name]
        donut = FittedDonut(stamp, 100.0, 100.0, 0.9, np.zeros(len(NOLL)))
        key = f"LSSTCam/20261120/{seq_num:06d}/prompt/wavefront/{name}.wavefront_stamps.fits"
        self.products.put(key, to_fits(DonutFile("LSSTCam", "r", name, (donut,))), content_type="application/fits")
        self.results.put_result(
            make_result(
                seq_num,
                detector.id,
                detector_name=name,
                pipeline="wavefront",
                products={"wavefront_stamps": key},
                **facts,
            )
        )


@pytest.fixture
def night(tmp_path):
    night = Night(tmp_path)
    yield night
    night.results.close()


def make_wavefront_summary(seq_num=1, **changes):
    facts = {"pipeline": "wavefront", "metrics": {"n_wavefronts_median": 1.0}}
    return make_summary(seq_num, **facts | changes)


def cwfs(seq_num: int, focus_z_mm: float | None, group_id: str | None = "g", physical_filter="r_57", **changes):
    info = {"focus_z_mm": focus_z_mm, "group_id": group_id, "physical_filter": physical_filter}
    return make_wavefront_summary(seq_num, image_type="cwfs", info=info, **changes)


# Which donuts belong together


def test_the_halves_of_a_corner_make_a_site_the_one_at_minus_a_half_is_extra_focal():
    ids = {name: LSSTCAM.by_name[name].id for name in ("R00_SW0", "R00_SW1", "R44_SW0", "R22_S11")}
    assert LSSTCAM.by_name["R00_SW0"].z_mm == -1.5
    sites = corner_sites("LSSTCam", {number: name for name, number in ids.items()})
    assert sites == {"R00": ("R00_SW0", "R00_SW1")}


def test_detectors_with_donuts_on_both_sides_make_sites_corner_halves_do_not():
    half = LSSTCAM.by_name["R00_SW0"].id
    sites = pair_sites("LSSTCam", {94: "a", 95: "b", half: "c"}, {94: "d", 96: "e", half: "f"})
    assert sites == {"R22_S11": ("a", "d")}


@pytest.mark.parametrize(
    ("others", "partner"),
    [
        pytest.param([cwfs(2, -1.5)], 2, id="the other side, of the group"),
        pytest.param([cwfs(2, 1.4)], None, id="the same side"),
        pytest.param([cwfs(1, -1.5)], None, id="itself"),
        pytest.param([cwfs(2, None)], None, id="focus not known"),
        pytest.param([cwfs(2, -1.5, physical_filter="g_6")], None, id="another filter"),
        pytest.param([cwfs(2, -1.5, "h"), cwfs(9, -1.5)], 9, id="the group goes before the neighbour"),
        pytest.param([cwfs(3, -1.5, "h"), cwfs(2, -1.5, None)], 2, id="without a group the nearest neighbour"),
        pytest.param([cwfs(4, -1.5, "h")], None, id="too far without a group"),
        pytest.param([], None, id="alone"),
    ],
)
def test_the_partner_of_a_donut_exposure(others, partner):
    found = choose_partner(cwfs(1, 1.5), others)
    assert (found.seq_num if found else None) == partner


def test_an_exposure_in_focus_has_no_partner():
    assert choose_partner(cwfs(1, 0.0), [cwfs(2, -1.5)]) is None


# The step


def check_products(summary, night) -> JointReport:
    report = JointReport.model_validate_json(night.products.get(summary.products["wavefront"]))
    for kind in ("wavefront_plot", "wavefront_donuts_plot"):
        path = night.products.get(summary.products[kind])
        assert path[:4] == b"\x89PNG"
    return report


@pytest.mark.slow
def test_a_corner_of_a_science_exposure_is_fitted_jointly(night, tmp_path):
    night.add(1, "R00_SW0", render_stamp(defocus_mm=1.5))
    night.add(1, "R00_SW1", render_stamp(defocus_mm=-1.5, seed=2))
    night.add(1, "R04_SW0", render_stamp(defocus_mm=1.5))  # its other half gave nothing
    summary = make_wavefront_summary()
    WavefrontStep()(summary, night.results, night.products)
    json.dumps(summary.metrics, allow_nan=False)
    assert (summary.metrics["wavefront_n_pairs"], summary.metrics["wavefront_n_sites"]) == (1, 1)
    assert summary.metrics["wavefront_z4_um"] == pytest.approx(0.2, abs=0.03)
    assert summary.metrics["wavefront_z7_um"] == pytest.approx(-0.15, abs=0.06)
    # Beyond focus by Z4: 0.2 um of 15.8 um per mm.
    assert summary.metrics["wavefront_focus_offset_um"] == pytest.approx(12.6, abs=2.0)
    assert summary.metrics["wavefront_r00_fwhm_arcsec"] > 0.1
    report = check_products(summary, night)
    assert [site.name for site in report.sites] == ["R00"]
    assert not list(tmp_path.glob("rapid-wavefront*"))
    picture = tmp_path / "products" / summary.products["wavefront_plot"]
    with Image.open(picture) as image:
        assert image.size == (1440, 660)


@pytest.mark.slow
def test_an_intra_and_an_extra_focal_exposure_are_fitted_by_the_later_one(night):
    night.add(1, "R22_S11", render_stamp(camera_mm=-1.5), image_type="cwfs")
    first = cwfs(1, -1.5)
    WavefrontStep()(first, night.results, night.products)
    assert not first.products
    night.results.put_summary(first)
    night.add(2, "R22_S11", render_stamp(camera_mm=1.5, seed=2), image_type="cwfs")
    second = cwfs(2, 1.5)
    WavefrontStep()(second, night.results, night.products)
    assert second.metrics["wavefront_partner"] == first.exposure
    assert second.metrics["wavefront_z4_um"] == pytest.approx(0.2, abs=0.03)
    assert check_products(second, night).sites[0].name == "R22_S11"


def test_other_summaries_and_those_of_detectors_under_way_are_left_alone(night):
    quick = make_summary()
    busy = make_wavefront_summary(detectors={191: DetectorStatus(state=DetectorState.RUNNING)})
    for summary in (quick, busy):
        before = summary.model_copy(deep=True)
        WavefrontStep()(summary, None, None)
        assert summary == before


def test_a_program_that_fails_leaves_a_note(night, monkeypatch):
    night.add(1, "R00_SW0", render_stamp(defocus_mm=1.5))
    night.add(1, "R00_SW1", render_stamp(defocus_mm=-1.5))
    monkeypatch.setattr(wavefront.sys, "executable", "/bin/false")
    summary = make_wavefront_summary()
    WavefrontStep()(summary, night.results, night.products)
    assert "failed" in summary.metrics["wavefront_note"]
    assert "wavefront" not in summary.products


def test_a_stop_ends_the_fit_and_gives_the_gather_back(night, tmp_path, monkeypatch):
    night.add(1, "R00_SW0", render_stamp(defocus_mm=1.5))
    night.add(1, "R00_SW1", render_stamp(defocus_mm=-1.5))
    started, program = tmp_path / "started", tmp_path / "slow"
    os.mkfifo(started)
    program.write_text(f"#!/bin/sh\necho > {started}\nexec tail -f /dev/null\n")
    program.chmod(0o755)
    monkeypatch.setattr(wavefront.sys, "executable", str(program))
    step, failures = WavefrontStep(), []

    def run():
        try:
            step(make_wavefront_summary(), night.results, night.products)
        except PayloadRetryError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.read_text() == "\n"  # it runs
    step.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert len(failures) == 1
    with pytest.raises(PayloadRetryError, match="before its wavefront"):
        step(make_wavefront_summary(), night.results, night.products)
