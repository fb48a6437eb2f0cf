"""Straight from the file, without a plane of counts, and without new planes for every image."""

import tracemalloc

import numpy as np
import pytest
from amp_raws import DictCalibs, detector, expose, frame_of, raw_bytes
from test_isr_steps_and_kernels import full_inputs, troubled_stack

from payloads.isr.fused import PlanePool, calibrate_stack, run_kernels
from payloads.isr.inputs import layout_of
from payloads.isr.payload import Isr, IsrConfig
from payloads.isr.readout import Scratch, read_segments
from payloads.isr.steps import run_steps
from payloads.plugin import CalibPlane
from payloads.raw.segments import OpenSegments
from rapid.camera.store import load_camera
from rapid.errors import CorruptRawError, PayloadError
from rapid.exposure.fits_header import scan

PLANES = ("image", "mask", "variance", "binned", "levels", "overscan_noise", "parallel_levels", "counts")


@pytest.mark.parametrize("compressed", [True, False], ids=["Rice", "plain"])
@pytest.mark.parametrize("detector_id", [0, 94, 204], ids=["ITL", "E2V", "half-size wavefront"])
def test_from_the_file_is_as_from_decoded_counts(detector_id, compressed):
    rng = np.random.default_rng(detector_id)
    det = detector(detector_id=detector_id)
    stack, inputs = troubled_stack(det, rng), full_inputs(det, rng)
    found = OpenSegments(scan(raw_bytes(det, stack, compressed=compressed)), det)
    planes, readout = PlanePool().take(inputs.layout, *found.shape)
    assert read_segments(found, inputs.layout, readout, Scratch())
    run_kernels(readout, inputs, planes)
    decoded = calibrate_stack(stack, inputs)
    for name in PLANES:
        np.testing.assert_array_equal(getattr(planes, name), getattr(decoded, name), err_msg=name)


def test_damaged_row_is_named():
    det = detector()
    stack = expose(det, np.full((det.height, det.width), 500.0), rng=np.random.default_rng(1))
    raw = bytearray(raw_bytes(det, stack, compressed=True))
    hdu = next(hdu for hdu in scan(bytes(raw)).hdus if hdu.name.upper() == "SEGMENT13")
    raw[hdu.data_offset + 8 * 7 : hdu.data_offset + 8 * 7 + 8] = b"\x7f" * 8
    with pytest.raises(CorruptRawError, match=r"(?i)segment13: row 7 points outside its heap"):
        Isr(IsrConfig()).run(frame_of(bytes(raw)))


def test_bands_that_share_rows_agree():
    rng = np.random.default_rng(4)
    det = detector()
    amps = tuple(amp.model_copy(update={"flip_y": place % 2 == 1}) for place, amp in enumerate(det.amps))
    mixed = det.model_copy(update={"amps": amps})
    stack, inputs = troubled_stack(mixed, rng), full_inputs(mixed, rng)
    assert not inputs.layout.bands_are_apart
    fast, slow = calibrate_stack(stack, inputs), run_steps(stack, inputs)
    np.testing.assert_array_equal(fast.mask, slow.mask)
    np.testing.assert_allclose(fast.image, slow.image, rtol=2e-5, atol=1e-2)
    np.testing.assert_allclose(fast.binned, slow.binned, rtol=2e-5, atol=1e-2)


def test_amps_that_fill_the_same_pixels_are_refused():
    det = detector()
    twice = det.amps[1].model_copy(update={"trimmed": det.amps[0].trimmed})
    with pytest.raises(PayloadError, match="same pixels"):
        layout_of((det.amps[0], twice, *det.amps[2:]), height=det.height, width=det.width)


def test_no_plane_is_allocated_for_the_next_image():
    camera = load_camera("LSSTCam")
    det = camera.by_id[94]
    rng = np.random.default_rng(5)
    stack = np.full((16, det.amps[0].raw_height, det.amps[0].raw_width), 23_000, dtype=np.int32)
    stack[:, ::7] += rng.integers(0, 50, stack[:, ::7].shape, dtype=np.int32)
    raw = raw_bytes(det, stack, compressed=True)
    del stack
    flat = np.ones((det.height, det.width), dtype=np.float32)
    empty = np.empty((0, 0), dtype=np.float32)
    calibs = DictCalibs(
        flat=CalibPlane("flat", flat),
        defects=CalibPlane("defects", np.zeros_like(flat)),
        crosstalk=CalibPlane("x", empty, table={a.name: {b.name: 1e-4 for b in det.amps} for a in det.amps}),
        linearity=CalibPlane("l", empty, table={a.name: {"1e3": 1.0, "1e5": 100.0} for a in det.amps}),
    )
    payload = Isr(IsrConfig())
    payload.run(frame_of(raw, camera="LSSTCam", calibs=calibs))
    tracemalloc.start()
    try:
        payload.run(frame_of(raw, camera="LSSTCam", calibs=calibs))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One float32 plane has 66 MB; a quarter of one is what all small arrays of a run may need.
    assert peak < 0.25 * flat.nbytes, f"{peak / 1e6:.0f} MB"
