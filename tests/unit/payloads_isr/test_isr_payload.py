import gc
from pathlib import Path

import numpy as np
import pytest
from amp_raws import DictCalibs, amp_pixels, detector, expose, frame_of, raw_bytes
from astropy.io import fits

from payloads.isr.assemble import AssembleRaw, bin_image
from payloads.isr.payload import N_PLANES_KEPT, Isr, IsrConfig
from payloads.mask import INTRP, SAT, SUSPECT
from payloads.plugin import CalibPlane
from rapid.camera.store import load_camera
from rapid.errors import CorruptRawError, PayloadError
from rapid.exposure.reader import read_info

SHARED = Path(__file__).resolve().parents[4] / "shared/data"


def plain_isr(**config):
    return Isr(IsrConfig(**config))


@pytest.fixture(params=[0, 94, 204], ids=["ITL", "E2V", "half-size wavefront"])
def det(request):
    return detector(detector_id=request.param)


def test_sky_comes_back_in_electrons_with_unit_pulls(det):
    rng = np.random.default_rng(11)
    sky = rng.poisson(900, (det.height, det.width)).astype(float)
    frame = frame_of(raw_bytes(det, expose(det, sky, rng=rng)), detector_id=det.id)
    plain_isr(parallel_overscan=False).run(frame)
    pulls = (frame.image - 900.0) / np.sqrt(frame.variance)
    n = pulls.size
    assert abs(pulls.mean()) < 0.1  # overscan levels of narrow test overscans wander a little
    assert abs(pulls.std() - 1.0) < 0.03
    assert n == det.width * det.height
    assert frame.unit == "electron"
    steps = ["serial_overscan", "saturation", "gain", "assemble", "variance", "interpolate", "cosmic_rays"]
    assert frame.applied == steps
    for amp in det.amps:
        assert abs(frame.amps[amp.name]["read_noise_electron"] / amp.read_noise - 1) < 0.1  # six overscan columns
        assert abs(frame.amps[amp.name]["image_mean_electron"] - 900) < 10


def test_calibs_are_undone_to_the_sky(det):
    """Sky through flat, dark, bias and crosstalk, in the order of physics; the payload takes them off again."""
    rng = np.random.default_rng(12)
    size = (det.height, det.width)
    flat = (1.0 - 0.3 * np.linspace(0, 1, det.width))[None, :] * rng.normal(1, 0.01, size)
    dark = rng.uniform(0.5, 2.0, size)
    bias = rng.normal(0, 5, size)
    sky = np.full(size, 5000.0)
    sky[50:60, 100:110] = 40_000.0
    electrons = sky * flat + 30.0 * dark + bias
    crosstalk = {a.name: {b.name: 2e-3 for b in det.amps if b is not a} for a in det.amps}
    seen = electrons.copy()
    for target in det.amps:
        for source in det.amps:
            if source is not target:
                amp_pixels(seen, target)[...] += 2e-3 * amp_pixels(electrons, source)
    stack = expose(det, seen, rng=rng, noise=False)
    size32 = {"bias": bias, "dark": dark, "flat": flat}
    calibs = {kind: CalibPlane(f"{kind}-1", plane.astype(np.float32)) for kind, plane in size32.items()}
    calibs["crosstalk"] = CalibPlane("ct-1", np.empty((0, 0), np.float32), table=crosstalk)
    frame = frame_of(raw_bytes(det, stack), detector_id=det.id, calibs=DictCalibs(**calibs))
    plain_isr(parallel_overscan=False).run(frame)
    # Crosstalk of crosstalk, (2e-3)^2 of some tens of amps' signals, is left: the correction is linear.
    assert np.abs(frame.image / sky - 1).max() < 2e-3
    assert set(frame.calib_ids) == {"bias", "dark", "flat", "crosstalk"}
    assert "flat" in frame.applied
    assert "defects" not in frame.applied


def test_quadratic_crosstalk_is_undone_where_the_configuration_asks():
    rng = np.random.default_rng(21)
    det = detector()
    sky = np.full((det.height, det.width), 1000.0)
    source = det.amps[3]
    amp_pixels(sky, source)[20:40, 5:15] = 60_000.0
    linear = {a.name: {source.name: 1e-3} for a in det.amps if a is not source}
    quadratic = {a.name: {source.name: -1e-8} for a in det.amps if a is not source}
    seen = sky.copy()
    for target in det.amps:
        if target is not source:
            light = amp_pixels(sky, source)
            amp_pixels(seen, target)[...] += 1e-3 * light - 1e-8 * light**2
    raw = raw_bytes(det, expose(det, seen, rng=rng, noise=False))
    empty = np.empty((0, 0), np.float32)
    calibs = DictCalibs(
        crosstalk=CalibPlane("ct-1", empty, table=linear),
        crosstalk_quadratic=CalibPlane("ct2-1", empty, table=quadratic),
    )

    def ghost(**config):
        frame = frame_of(raw, detector_id=det.id, calibs=calibs)
        plain_isr(parallel_overscan=False, **config).run(frame)
        target = amp_pixels(frame.image, det.amps[0])
        return target[20:40, 5:15].mean() - target[60:, 5:15].mean(), frame

    left, frame = ghost()  # to a count, of 1.5 electron
    assert left == pytest.approx(-36.0, abs=1.6)
    assert "crosstalk_quadratic" not in frame.applied
    left, frame = ghost(quadratic_crosstalk=True)
    assert left == pytest.approx(0.0, abs=1.6)
    assert frame.applied.index("crosstalk_quadratic") == frame.applied.index("crosstalk") + 1
    assert frame.calib_ids["crosstalk_quadratic"] == "ct2-1"
    calibs.calibs.pop("crosstalk")
    left, frame = ghost(quadratic_crosstalk=True)
    assert left == pytest.approx(59.0, abs=1.6)
    assert "crosstalk" not in frame.applied


def test_numbers_of_calibs_that_are_none():
    det = detector()
    raw = raw_bytes(det, expose(det, np.full((det.height, det.width), 500.0), rng=np.random.default_rng(3)))
    one, other = det.amps[0].name, det.amps[1].name
    for kind in ("crosstalk", "crosstalk_quadratic"):
        calib = CalibPlane("ct-1", np.empty((0, 0), np.float32), table={one: {other: float("nan")}})
        with pytest.raises(PayloadError, match=f"crosstalk of {other} into {one} is nan"):
            plain_isr(quadratic_crosstalk=True).run(frame_of(raw, calibs=DictCalibs(**{kind: calib})))
    size = (det.height, det.width)
    variance = np.full(size, np.nan, np.float32)
    frame = frame_of(raw, calibs=DictCalibs(bias=CalibPlane("b", np.zeros(size, np.float32), variance=variance)))
    plain_isr().run(frame)
    assert frame.metrics["image_median_electron"] == pytest.approx(500, abs=3)


def test_a_kernel_that_is_none_leaves_the_image_uncorrected_and_says_so():
    det = detector()
    raw = raw_bytes(det, expose(det, np.full((det.height, det.width), 500.0), rng=np.random.default_rng(3)))
    kernel = CalibPlane("bf-1", np.full((5, 5), -1.0, np.float32))
    frame = frame_of(raw, calibs=DictCalibs(brighter_fatter=kernel))
    plain_isr(brighter_fatter=True).run(frame)
    assert "brighter_fatter" not in frame.applied
    assert "brighter_fatter" not in frame.calib_ids
    assert frame.metrics["brighter_fatter_converged"] is False
    assert frame.metrics["image_median_electron"] == pytest.approx(500, abs=3)


def test_parallel_overscan_takes_a_column_structure_off():
    det = detector()
    rng = np.random.default_rng(13)
    stack = expose(det, np.full((det.height, det.width), 500.0), rng=rng)
    pattern = np.rint(rng.normal(0, 30, det.amps[0].data.width) / 8).astype(int)
    for place in range(len(stack)):
        x0 = det.amps[place].data.x0
        stack[place, :, x0 : x0 + len(pattern)] += np.minimum(pattern, 2)
    frame = frame_of(raw_bytes(det, stack))
    plain_isr().run(frame)
    box = det.amps[0].trimmed.slices
    columns = frame.image[box].mean(axis=0)
    noise = det.amps[0].read_noise / np.sqrt(6)
    assert columns.std() < 2 * noise
    plain_isr(parallel_overscan=False).run(frame)
    assert frame.image[box].mean(axis=0).std() > 3


def test_saturation_and_ptc():
    det = detector()
    rng = np.random.default_rng(14)
    sky = np.full((det.height, det.width), 100.0)
    sky[30:33, 40:43] = 300_000.0
    sky[60, 60] = 85_000.0
    ptc = CalibPlane(
        "ptc-1", np.empty((0, 0), np.float32),
        table={amp.name: {"gain": amp.gain * 2, "read_noise": 9.0, "turnoff_electron": 80_000 * 2} for amp in det.amps},
    )  # fmt: skip
    frame = frame_of(raw_bytes(det, expose(det, sky, rng=rng)), calibs=DictCalibs(ptc=ptc))
    plain_isr().run(frame)
    assert (frame.mask[30:33, 40:43] & SAT).all()
    assert (frame.mask[31, 39:44] & (SAT | INTRP)).all(), "saturation grows by one pixel"
    assert frame.mask[60, 60] & SUSPECT
    assert not frame.mask[60, 60] & SAT
    assert frame.metrics["n_saturated"] == 9
    assert abs(frame.metrics["image_median_electron"] - 200.0) < 5
    assert frame.calib_ids == {"ptc": "ptc-1"}


def test_railed_amp_is_saturated_and_the_rest_is_fine():
    det = detector()
    rng = np.random.default_rng(15)
    stack = expose(det, rng.poisson(500, (det.height, det.width)).astype(float), rng=rng)
    stack[3] = 262143
    frame = frame_of(raw_bytes(det, stack))
    plain_isr().run(frame)
    railed = det.amps[3]
    assert (frame.mask[railed.trimmed.slices] & SAT).all()
    assert frame.amps[railed.name]["image_median_electron"] is None
    assert frame.amps[railed.name]["n_saturated"] == railed.data.width * railed.data.height
    assert np.isfinite(frame.image).all()
    assert abs(frame.metrics["image_median_electron"] - 500) < 10


def test_calib_of_another_size_is_an_error():
    det = detector()
    raw = raw_bytes(det, expose(det, np.zeros((det.height, det.width)), rng=np.random.default_rng(1)))
    frame = frame_of(raw, calibs=DictCalibs(bias=CalibPlane("b-7", np.zeros((3, 3), np.float32))))
    with pytest.raises(PayloadError, match="b-7"):
        plain_isr().run(frame)


def test_dark_needs_a_time():
    det = detector()
    raw = raw_bytes(det, expose(det, np.zeros((det.height, det.width)), rng=np.random.default_rng(1)))
    dark = CalibPlane("d-1", np.ones((det.height, det.width), np.float32))
    frame = frame_of(raw, calibs=DictCalibs(dark=dark), dark_time_s=None, exposure_time_s=None)
    plain_isr().run(frame)
    assert "dark" not in frame.applied
    assert "dark" not in frame.calib_ids


def test_adu_when_gain_is_off():
    det = detector()
    rng = np.random.default_rng(16)
    sky = rng.poisson(900, (det.height, det.width)).astype(float)
    frame = frame_of(raw_bytes(det, expose(det, sky, rng=rng)))
    plain_isr(gain=False, parallel_overscan=False).run(frame)
    assert frame.unit == "ADU"
    amp = det.amps[0]
    part = frame.image[amp.trimmed.slices]
    assert abs(part.mean() - 900 / amp.gain) < 5
    pulls = (part - 900 / amp.gain) / np.sqrt(frame.variance[amp.trimmed.slices])
    assert abs(pulls.std() - 1) < 0.05


def test_planes_in_use_are_not_overwritten():
    det = detector()
    rng = np.random.default_rng(17)
    raws = [raw_bytes(det, expose(det, np.full((det.height, det.width), v), rng=rng)) for v in (100.0, 900.0)]
    isr = plain_isr()
    first = frame_of(raws[0])
    isr.run(first)
    part = first.image[3:5]
    second = frame_of(raws[1])
    isr.run(second)
    assert np.median(part) < 300
    assert np.median(first.image) < 300
    buffer = second.image.__array_interface__["data"][0]
    del second
    gc.collect()
    third = frame_of(raws[0])
    isr.run(third)
    assert third.image.__array_interface__["data"][0] == buffer, "a plane that nobody holds is used again"


def test_raw_without_bytes():
    with pytest.raises(PayloadError):
        plain_isr().run(frame_of(None))


def test_binned_is_the_mean_of_blocks():
    det = detector()
    rng = np.random.default_rng(18)
    frame = frame_of(raw_bytes(det, expose(det, rng.poisson(900, (det.height, det.width)).astype(float), rng=rng)))
    plain_isr().run(frame)
    np.testing.assert_allclose(frame.binned, bin_image(frame.image, 8), rtol=1e-5)


@pytest.mark.parametrize("camera_detector", [0, 94, 204])
def test_assemble_puts_every_count_in_place(camera_detector):
    det = detector(detector_id=camera_detector)
    image = np.arange(det.width * det.height, dtype=float).reshape(det.height, det.width) % 200_000
    stack = np.zeros((len(det.amps), det.amps[0].raw_height, det.amps[0].raw_width), dtype=np.int32)
    for place, amp in enumerate(det.amps):
        stack[place][amp.data.slices] = amp_pixels(image, amp)
    frame = frame_of(raw_bytes(det, stack), detector_id=camera_detector)
    AssembleRaw(AssembleRaw.Config()).run(frame)
    np.testing.assert_array_equal(frame.image, image)
    assert frame.applied == ["assemble"]


def test_damaged_raw_is_a_raw_error():
    det = detector()
    raw = raw_bytes(det, expose(det, np.zeros((det.height, det.width)), rng=np.random.default_rng(1)), compressed=True)
    damaged = bytearray(raw)
    for place in range(20_000, len(raw), 3000):
        damaged[place : place + 40] = b"\xff" * 40
    with pytest.raises(CorruptRawError):
        plain_isr().run(frame_of(bytes(damaged)))


def real_frame(name):
    data = (SHARED / name).read_bytes()
    info, structure = read_info(data, uri=name)
    camera = load_camera(info.camera)
    frame = frame_of(structure.data)
    frame.info, frame.camera, frame.detector = info, camera, camera.by_id[info.detector]
    return frame


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real raws are not here")
def test_itl_marker_raw_assembles_exactly():
    frame = real_frame("itl_spot.fits.gz")
    AssembleRaw(AssembleRaw.Config()).run(frame)
    np.testing.assert_array_equal(frame.image, fits.getdata(SHARED / "itl_expected_assembled.fits.gz"))


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real raws are not here")
@pytest.mark.parametrize("name", ["7024032100720-R22-S11-det094.fits.fz", "CC_S_20240404_000780_R22_S01.fits"])
def test_real_raw_is_calibrated(name):
    frame = real_frame(name)
    plain_isr().run(frame)
    assert np.isfinite(frame.image).all()
    assert frame.image.shape == (frame.detector.height, frame.detector.width)
    assert frame.binned.shape == (frame.detector.height // 8, frame.detector.width // 8)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real raws are not here")
@pytest.mark.parametrize("payload", [AssembleRaw(AssembleRaw.Config()), Isr(IsrConfig())], ids=["assemble", "isr"])
def test_guider_stamps(payload):
    frame = real_frame("MC_C_20240918_000013_R00_SG0_guider.fits")
    frame.info = frame.info.model_copy(update={"is_guider": True})
    payload.run(frame)
    table = frame.tables["stamps"]
    assert len(table["stamp"]) == frame.metrics["n_stamps"] == 102
    assert frame.image is None


def test_what_is_derived_from_calibs_is_kept_for_those_used_last():
    payload, made = plain_isr(), []

    def derive(kind, key):
        def make():
            made.append((kind, key))
            return object()

        return payload._derive(kind, key, make)

    first = derive("defects", 0)
    for key in range(1, N_PLANES_KEPT):
        derive("defects", key)
    assert derive("defects", 0) is first
    derive("defects", "one more")
    assert derive("defects", 0) is first, "it was used after the others"
    assert made == [("defects", key) for key in (*range(N_PLANES_KEPT), "one more")]
    derive("defects", 1)
    assert made[-1] == ("defects", 1), "the one that was not used for longest was let go of"
    derive("linearity", 0)
    assert made[-1] == ("linearity", 0), "each kind has its own"


def test_detectors_that_alternate_are_each_calibrated_with_their_own():
    rng = np.random.default_rng(5)
    raws, found = {}, {}
    for number in (0, 94):
        det = detector(detector_id=number)
        raws[number] = raw_bytes(det, expose(det, rng.poisson(900, (det.height, det.width)).astype(float), rng=rng))
    payload = plain_isr(parallel_overscan=False)

    def calibrated(number, isr):
        det = detector(detector_id=number)
        bad = np.zeros((det.height, det.width), np.float32)
        bad[number % 7, 3] = 1
        curves = {amp.name: {0.0: 0.0, 2e5: float(10 * number)} for amp in det.amps}
        calibs = DictCalibs(
            defects=CalibPlane(f"defects-{number}", bad),
            linearity=CalibPlane(f"linearity-{number}", np.empty((0, 0), np.float32), table=curves),
        )
        frame = frame_of(raws[number], detector_id=number, calibs=calibs)
        isr.run(frame)
        return frame.image.copy(), frame.mask.copy()

    for number in (0, 94):
        found[number] = calibrated(number, plain_isr(parallel_overscan=False))
    for number in (0, 94, 0, 94):
        image, mask = calibrated(number, payload)
        assert np.array_equal(image, found[number][0])
        assert np.array_equal(mask, found[number][1])
