"""A slitless spectrum: its trace, and its light."""

import numpy as np
import pytest
from pydantic import ValidationError

from payloads.plugin import Frame
from payloads.spectrum.kernels import extract, find_trace, find_zero_order, wavelengths_of
from payloads.spectrum.payload import SpectrumQuickLook
from rapid.camera.store import load_camera
from rapid.errors import PayloadError
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.pipeline.store import choose_pipeline, default_book

NY, NX, SIGMA = 800, 300, 2.5


def light(y):
    """A continuum with an absorption line at row 500."""
    return 3000.0 * np.exp(-(((y - 400) / 300) ** 2)) * (1 - 0.6 * np.exp(-(((y - 500) / 6) ** 2)))


def make_image(*, tilt: float = 0.01, flux: float = 1.0, zeroth: float = 0.0, seed: int = 2):
    rng = np.random.default_rng(seed)
    ys, xs = np.indices((NY, NX), dtype=np.float64)
    centre = 150.3 + tilt * ys
    image = 100 + rng.normal(0, 5, (NY, NX))
    image += flux * light(ys) / np.sqrt(2 * np.pi) / SIGMA * np.exp(-((xs - centre) ** 2) / 2 / SIGMA**2)
    image += zeroth * np.exp(-((xs - 60) ** 2 + (ys - 90) ** 2) / 2 / 9.0)
    return image.astype(np.float32)


def test_the_trace_is_found_straight_or_tilted():
    for tilt in (0.0, 0.01, -0.012):
        trace = find_trace(make_image(tilt=tilt))
        np.testing.assert_allclose(trace.centre_px, 150.3 + tilt * np.arange(NY), atol=0.4)
        assert trace.fwhm_px == pytest.approx(2.3548 * SIGMA, rel=0.15)


def test_the_light_is_that_of_the_star_line_and_all():
    image = make_image()
    found = extract(image, find_trace(image))
    rows = np.arange(NY)
    assert np.abs(found.flux - light(rows)).mean() < 3 * 5 * np.sqrt(21)
    np.testing.assert_allclose(found.flux.sum(), light(rows).sum(), rtol=0.01)
    assert found.flux[495:506].mean() < 0.75 * found.flux[470:480].mean()
    assert np.median(found.background) == pytest.approx(100, abs=0.5)


def test_the_zeroth_order_is_not_taken_for_the_spectrum():
    trace = find_trace(make_image(zeroth=50_000.0))
    assert abs(np.median(trace.centre_px) - 154) < 1


@pytest.mark.parametrize(
    "image",
    [make_image(flux=0.0), np.zeros((NY, NX), np.float32), make_image(flux=0.0, zeroth=50_000.0)],
    ids=["noise", "zeros", "a star alone"],
)
def test_where_no_spectrum_is_none_is_found(image):
    assert find_trace(image) is None


def frame_of(image) -> Frame:
    camera = load_camera("LATISS")
    detector = camera.detectors[0]
    info = ExposureInfo(
        camera="LATISS", exposure_id=2026112000001, obs_id="AT_O_20261120_000001", controller="O", day_obs=20261120,
        seq_num=1, detector=detector.id, detector_name=detector.name, image_type=ImageType.SCIENCE,
        physical_filter="empty_1~holo4_003",
    )  # fmt: skip
    return Frame(raw=None, info=info, header={}, camera=camera, detector=detector, image=image)


@pytest.mark.parametrize("axis", ["y", "x"])
def test_the_payload_writes_table_and_numbers(axis):
    image = make_image()
    frame = frame_of(image if axis == "y" else np.ascontiguousarray(image.T))
    SpectrumQuickLook(SpectrumQuickLook.Config(dispersion=axis)).run(frame)
    assert frame.metrics["spectrum_found"] is True
    assert frame.metrics["spectrum_flux_max_adu"] == pytest.approx(3000, rel=0.1)
    assert frame.metrics["spectrum_tilt"] == pytest.approx(0.01, abs=0.002)
    assert {len(column) for column in frame.tables["spectrum"].values()} == {NY}


ZERO_ROW, NM_PER_PX = 62.4, 1.3


def image_with_zero_order(*, peak: float = 40_000.0) -> np.ndarray:
    """A spectrum with an absorption line at row 500, and on its line the star itself, undispersed."""
    ys, xs = np.indices((NY, NX), dtype=np.float64)
    centre = 150.3 + 0.01 * ys
    star = peak / (2 * np.pi * SIGMA**2) * np.exp(-((xs - centre) ** 2 + (ys - ZERO_ROW) ** 2) / 2 / SIGMA**2)
    return (make_image() + star).astype(np.float32)


def test_the_zeroth_order_on_the_line_of_the_trace_is_found():
    image = image_with_zero_order()
    trace = find_trace(image)
    found = find_zero_order(extract(image, trace).flux, fwhm_px=trace.fwhm_px)
    assert found == pytest.approx(ZERO_ROW, abs=0.2)


@pytest.mark.parametrize("peak", [0.0, 2000.0], ids=["none", "fainter than the spectrum"])
def test_what_is_no_zeroth_order_is_not_taken_for_it(peak):
    image = image_with_zero_order(peak=peak)
    trace = find_trace(image)
    assert find_zero_order(extract(image, trace).flux, fwhm_px=trace.fwhm_px) is None
    assert find_zero_order(np.ones(20), fwhm_px=6.0) is None


@pytest.mark.parametrize(
    "settings", [{}, {"zero_order_px": ZERO_ROW}], ids=["zeroth order found", "zeroth order given"]
)
def test_with_a_dispersion_rows_have_wavelengths(settings):
    frame = frame_of(image_with_zero_order())
    SpectrumQuickLook(SpectrumQuickLook.Config(nm_per_px=NM_PER_PX, **settings)).run(frame)
    table = frame.tables["spectrum"]
    line = min(range(480, 520), key=lambda row: table["flux_adu"][row])
    assert table["wavelength_nm"][line] == pytest.approx((500 - ZERO_ROW) * NM_PER_PX, abs=5 * NM_PER_PX)
    assert table["wavelength_nm"][10] is None, "on the other side"


def test_a_negative_dispersion_counts_the_other_way():
    found = wavelengths_of(100, zero_order_px=90.0, nm_per_px=-2.0)
    assert found[40] == 100.0
    assert np.isnan(found[95])


def test_without_a_dispersion_or_a_zeroth_order_there_are_no_wavelengths():
    frame = frame_of(image_with_zero_order())
    SpectrumQuickLook(SpectrumQuickLook.Config()).run(frame)
    assert frame.metrics["spectrum_zero_order_px"] == pytest.approx(ZERO_ROW, abs=0.2)
    assert "wavelength_nm" not in frame.tables["spectrum"]
    frame = frame_of(make_image())
    SpectrumQuickLook(SpectrumQuickLook.Config(nm_per_px=NM_PER_PX)).run(frame)
    assert frame.metrics["spectrum_zero_order_px"] is None
    assert "wavelength_nm" not in frame.tables["spectrum"]


def test_without_a_spectrum_numbers_are_none():
    frame = frame_of(make_image(flux=0.0))
    SpectrumQuickLook(SpectrumQuickLook.Config()).run(frame)
    assert frame.metrics["spectrum_found"] is False
    assert frame.metrics["spectrum_fwhm_px"] is None
    assert "spectrum" not in frame.tables
    frame.image = None
    with pytest.raises(PayloadError, match="assembled image"):
        SpectrumQuickLook(SpectrumQuickLook.Config()).run(frame)


@pytest.mark.parametrize(
    ("filter_name", "pipeline"), [("empty_1~holo4_003", "spectrum"), ("SDSSr_65mm~empty_1", "quicklook")]
)
def test_dispersed_images_of_latiss_are_told_by_their_filter(filter_name, pipeline):
    info = frame_of(make_image(flux=0.0)).info
    purpose = load_camera("LATISS").detectors[0].purpose
    assert choose_pipeline(info, {"FILTER": filter_name}, default_book(), purpose=purpose).name == pipeline


def test_a_dispersion_of_zero_is_refused_by_name():
    with pytest.raises(ValidationError, match="nm_per_px"):
        SpectrumQuickLook.Config(nm_per_px=0.0)
