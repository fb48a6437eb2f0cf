"""Pieces of mosaics: read as they were written, and brought to one scale of flux."""

import io

import numpy as np
import pytest
from astropy.io import fits

from rapid.gather.pieces import flux_scale, read_binned, sky_mesh, without_sky


def as_fits(image, **cards) -> bytes:
    hdu = fits.PrimaryHDU(image)
    hdu.header.update(cards)
    buffer = io.BytesIO()
    hdu.writeto(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(509, 500), (1, 1), (3, 7)])
@pytest.mark.parametrize("n_cards", [0, 60], ids=["short header", "header of several blocks"])
def test_a_binned_image_is_read_as_astropy_wrote_it(shape, n_cards):
    image = np.random.default_rng(3).normal(900, 5, shape).astype(np.float32)
    cards = {f"HIERARCH FACT {n}": (n, "a remark / with a slash") for n in range(n_cards)}
    read = read_binned(as_fits(image, DETNAME="R22_S11 / odd", **cards))
    assert read.dtype == np.float32
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, image)


IMAGE = np.ones((20, 30), np.float32)


@pytest.mark.parametrize(
    "data",
    [b"", b"not FITS at all", b"x" * 5760, as_fits(IMAGE)[:-3000], as_fits(np.ones((4, 4), np.int16)), as_fits(None)],
    ids=["nothing", "text", "no end of the header", "cut short", "integers", "no image"],
)
def test_what_is_no_binned_image_is_refused(data):
    with pytest.raises(ValueError, match=r"image|header|bytes"):
        read_binned(data)


def test_the_sky_is_taken_out_and_a_star_stays():
    rng = np.random.default_rng(5)
    x = np.mgrid[:509, :500][1]
    image = (900 + 0.05 * x + rng.normal(0, 4, x.shape)).astype(np.float32)
    image[250:254, 300:304] += 5000
    flat = without_sky(image, factor=2.0)
    assert abs(np.median(flat)) < 1.0
    assert abs(np.median(flat[:, :50]) - np.median(flat[:, -50:])) < 3.0
    assert flat[251, 301] == pytest.approx(10_000, rel=0.01)
    assert image[251, 301] > 5900, "the image itself was changed"


@pytest.mark.parametrize("shape", [(31, 32), (5, 3), (1, 1), (200, 65)])
def test_the_mesh_of_a_small_image_is_its_median(shape):
    assert np.allclose(sky_mesh(np.full(shape, 7.0, np.float32)), 7.0)
    nothing = np.full(shape, np.nan, np.float32)
    assert np.isfinite(sky_mesh(nothing)).all()


def zero_points(**values):
    return {
        number: {"zero_point_mag": value, "zero_point_error_mag": 0.01, "zero_point_system": "AB"}
        for number, value in enumerate(values.values())
    }


def test_flux_is_in_nanojansky_with_zero_points_of_ab_magnitudes():
    scale = flux_scale(zero_points(a=28.0, b=28.5), exposure_time_s=30.0)
    assert scale.unit == "nJy"
    # A star of 28.0 mag has 10^(0.4 (31.4 - 28.0)) nJy, and gives one electron per second.
    assert scale.factors[0] == pytest.approx(10 ** (0.4 * 3.4) / 30)
    assert scale.factors[0] / scale.factors[1] == pytest.approx(10**0.2)


def test_a_detector_without_a_good_zero_point_takes_that_of_the_others():
    metrics = zero_points(a=28.0, b=28.0, c=28.0)
    metrics[1] = {"zero_point_mag": 22.0, "zero_point_error_mag": 0.4, "zero_point_system": "AB"}
    metrics[2] = {"zero_point_mag": None}
    scale = flux_scale(metrics, exposure_time_s=30.0)
    assert scale.factors[1] == scale.factors[2] == scale.factors[0]


def test_without_zero_points_everything_stays_in_electron():
    scale = flux_scale({4: {}, 5: {"zero_point_mag": None}}, exposure_time_s=30.0)
    assert scale.unit == "e⁻"
    assert scale.factors == {4: 1.0, 5: 1.0}


def test_relative_zero_points_bring_the_detectors_to_one_throughput():
    metrics = zero_points(a=28.0, b=28.5, c=28.0)
    for found in metrics.values():
        found["zero_point_system"] = "instrument"
    scale = flux_scale(metrics, exposure_time_s=30.0)
    assert scale.unit == "e⁻"
    assert scale.factors[0] == pytest.approx(1.0)
    assert scale.factors[1] == pytest.approx(10**-0.2)
