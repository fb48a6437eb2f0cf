"""The steps that a configuration may ask for, through the payload."""

import numpy as np
import pytest
from amp_raws import DictCalibs, detector, expose, frame_of, raw_bytes

from payloads.isr.assemble import bin_image
from payloads.isr.payload import Isr, IsrConfig
from payloads.mask import CR, INTRP
from payloads.plugin import CalibPlane
from rapid.errors import PayloadError

DET = detector()
SIZE = (DET.height, DET.width)
EMPTY = np.empty((0, 0), np.float32)


def run(stack, *, calibs=None, **config):
    frame = frame_of(raw_bytes(DET, stack), calibs=DictCalibs(**(calibs or {})))
    Isr(IsrConfig(parallel_overscan=False, **config)).run(frame)
    return frame


def kernel():
    y, x = np.mgrid[-3:4, -3:4].astype(float)
    return (-8e-7 / (1 + np.hypot(x, y) ** 2)).astype(np.float32)


def scene(rng):
    """Sky with a smooth bright blob; returns electrons."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    blob = 60_000 * np.exp(-0.5 * ((x - 130) ** 2 + (y - 60) ** 2) / 9)
    return 800 + blob


def test_cosmic_rays_are_flagged_counted_and_left_in_the_image():
    rng = np.random.default_rng(1)
    sky = rng.poisson(900, SIZE).astype(float)
    sky[40, 50], sky[70, 80:84], sky[71, 84:90] = 9000, 7000, 7000
    frame = run(expose(DET, sky, rng=rng), cosmic_ray_search={"sharpest_fwhm_arcsec": 6.4})
    assert (frame.mask[40, 50], frame.mask[70, 81]) == (CR, CR)
    assert frame.image[40, 50] == pytest.approx(9000, rel=0.02)
    assert frame.metrics["n_cosmic_rays"] == 2
    assert frame.metrics["n_cosmic_ray_px"] == np.count_nonzero(frame.mask & CR) == 11
    assert frame.applied[-1] == "cosmic_rays"


def test_repaired_rays_leave_the_binned_image_too():
    rng = np.random.default_rng(2)
    sky = rng.poisson(900, SIZE).astype(float)
    sky[40, 48:56] = 60_000
    search = {"sharpest_fwhm_arcsec": 6.4, "repair": True}
    frame = run(expose(DET, sky, rng=rng), cosmic_ray_search=search)
    assert (frame.mask[40, 48:56] & (CR | INTRP) == (CR | INTRP)).all()
    assert frame.binned[5, 6] == pytest.approx(900, abs=30)
    np.testing.assert_allclose(frame.binned, bin_image(frame.image, 8), rtol=1e-5)


def test_in_an_image_of_spikes_none_is_flagged_and_the_step_is_not_said_to_be_applied():
    rng = np.random.default_rng(3)
    sky = rng.poisson(900, SIZE).astype(float)
    sky[rng.random(SIZE) < 0.03] += 8000
    frame = run(expose(DET, sky, rng=rng), cosmic_ray_search={"sharpest_fwhm_arcsec": 6.4})
    assert not (frame.mask & CR).any()
    assert "cosmic_rays" not in frame.applied
    assert frame.metrics["n_cosmic_rays"] is None


def test_without_the_step_there_is_no_number():
    rng = np.random.default_rng(4)
    frame = run(expose(DET, np.full(SIZE, 900.0), rng=rng), cosmic_rays=False)
    assert "n_cosmic_rays" not in frame.metrics


def test_charge_steps_are_off_without_being_asked_for():
    rng = np.random.default_rng(5)
    calibs = {"brighter_fatter": CalibPlane("bf-1", kernel()), "serial_cti": CalibPlane("cti-1", EMPTY, table={})}
    frame = run(expose(DET, scene(rng), rng=rng), calibs=calibs)
    assert frame.calib_ids == {}
    assert not {"brighter_fatter", "serial_cti"} & set(frame.applied)


def test_charge_steps_without_their_calib_are_not_applied():
    rng = np.random.default_rng(6)
    frame = run(expose(DET, scene(rng), rng=rng), brighter_fatter=True, serial_cti=True)
    assert not {"brighter_fatter", "serial_cti"} & set(frame.applied)


def test_brighter_fatter_and_deferred_charge_act_on_charge_before_the_flat_and_leave_the_flat_undone():
    rng = np.random.default_rng(7)
    flat = (1 - 0.4 * np.linspace(0, 1, SIZE[1]) * np.ones(SIZE)).astype(np.float32)
    flat[10, 10] = 0.0
    dark = rng.uniform(0, 3, SIZE).astype(np.float32)
    light = scene(rng)
    stack = expose(DET, light * flat + 30 * dark, rng=rng, noise=False)
    table = {amp.name: {"cti": 2e-5} for amp in DET.amps}
    calibs = {
        "flat": CalibPlane("flat-1", flat),
        "dark": CalibPlane("dark-1", dark),
        "brighter_fatter": CalibPlane("bf-1", kernel()),
        "serial_cti": CalibPlane("cti-1", EMPTY, table=table),
    }
    plain = run(stack, calibs=calibs)
    both = run(stack, calibs=calibs, brighter_fatter=True, serial_cti=True)
    assert both.applied[-3:] == ["serial_cti", "brighter_fatter", "cosmic_rays"]
    assert both.calib_ids["serial_cti"] == "cti-1"
    assert both.calib_ids["brighter_fatter"] == "bf-1"
    assert both.metrics["brighter_fatter_converged"] is True
    # The blob gets its peak back: the divergence of the charge as it was under dark and flat.
    at = (60, 130)
    assert both.image[at] - plain.image[at] > 0.004 * plain.image[at]
    changed = (both.image - plain.image) * flat
    inside = np.s_[20:100, 90:170]
    assert abs(changed[inside].sum()) < 0.1 * np.abs(changed[inside]).sum()
    # Far from it nothing but the trails' small share of the sky.
    assert np.abs(changed[150:, :]).max() < 5
    np.testing.assert_array_equal(both.variance, plain.variance)
    np.testing.assert_allclose(both.binned, bin_image(both.image, 8), rtol=1e-5)


def test_a_kernel_that_is_none_is_an_error():
    rng = np.random.default_rng(8)
    calibs = {"brighter_fatter": CalibPlane("bf-2", np.zeros((4, 4), np.float32))}
    with pytest.raises(PayloadError, match="odd"):
        run(expose(DET, scene(rng), rng=rng), calibs=calibs, brighter_fatter=True)
