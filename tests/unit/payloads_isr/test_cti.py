"""Charge left behind on the way out is put back."""

import numpy as np
import pytest
from amp_raws import detector

from payloads.isr.cti import correct_serial_cti, cti_parameters
from payloads.isr.inputs import layout_of
from rapid.errors import PayloadError


def shift_out(row, cti, n_prescan):
    """Read a row out shift by shift: at each, every pixel leaves the fraction ``cti`` behind. The first is read first."""
    register = np.concatenate([np.zeros(n_prescan), row, np.zeros(3)])
    out = []
    for _ in range(len(register)):
        # All packets move one pixel towards the amplifier; what is left joins the packet that moves in.
        left = cti * register
        register = register - left
        out.append(register[0])
        register = np.concatenate([register[1:], [0.0]]) + left
    return np.array(out)[n_prescan : n_prescan + len(row)]


def remember(row, scale, decay_px, limit):
    """Add the amplifier's memory of the pixels before."""
    out, offset = np.empty_like(row), 0.0
    for x, charge in enumerate(row):
        out[x] = charge + offset
        offset = max(scale * min(max(charge, 0.0), limit), offset * np.exp(-1.0 / decay_px))
    return out


def place_of(*, flip_x):
    return np.array([[0, 0, flip_x, 0]], dtype=np.int64)


@pytest.mark.parametrize("flip_x", [False, True], ids=["read from the left", "read from the right"])
@pytest.mark.parametrize("cti", [1e-6, 1e-5])
def test_a_row_shifted_out_pixel_by_pixel_comes_back(cti, flip_x):
    rng = np.random.default_rng(1)
    rows = rng.poisson(800, (3, 200)).astype(float)
    rows[:, 60], rows[:, 150:155] = 90_000, 30_000
    seen = np.stack([shift_out(row, cti, 10) for row in rows])
    assert np.abs(seen - rows).max() > 60 * cti * 90_000
    image = (seen[:, ::-1] if flip_x else seen).astype(np.float32)
    correct_serial_cti(
        image, place_of(flip_x=flip_x), width=200, height=3, n_prescan=10,
        parameters=cti_parameters({"C00": {"cti": cti}}, ["C00"]),
    )  # fmt: skip
    back = image[:, ::-1] if flip_x else image
    # What is left: shares that fall back twice, (n cti)^2, and rounding.
    np.testing.assert_allclose(back, rows, atol=0.02 + 90_000 * (210 * cti) ** 2)


def test_the_amplifiers_memory_is_taken_off():
    rng = np.random.default_rng(2)
    numbers = {"offset_scale": 5e-4, "offset_decay_px": 12.0, "offset_max_electron": 60_000.0}
    rows = rng.poisson(500, (4, 300)).astype(float)
    rows[:, 40], rows[:, 200:210] = 150_000, 40_000
    seen = np.stack([remember(row, 5e-4, 12.0, 60_000.0) for row in rows])
    assert (seen - rows).max() == pytest.approx(30, abs=0.1)
    image = seen.astype(np.float32)
    correct_serial_cti(
        image, place_of(flip_x=False), width=300, height=4, n_prescan=3,
        parameters=cti_parameters({"C00": numbers}, ["C00"]),
    )  # fmt: skip
    np.testing.assert_allclose(image, rows, rtol=1e-6, atol=0.02)


def test_the_trail_into_the_overscan_is_what_was_missing():
    row = np.full(100, 50_000.0)
    cti = 1e-5
    register_total = row.sum()
    seen = shift_out(row, cti, 0)
    deferred = register_total - seen.sum()
    assert deferred == pytest.approx(50_000 * 100 * cti, rel=1e-2)  # EPER: the last pixel's transfers
    image = seen[None].astype(np.float32)
    correct_serial_cti(
        image, place_of(flip_x=False), width=100, height=1, n_prescan=0,
        parameters=cti_parameters({"C00": {"cti": cti}}, ["C00"]),
    )  # fmt: skip
    assert image.sum(dtype=float) == pytest.approx(register_total, rel=1e-6)


def test_every_amp_is_read_towards_its_own_amplifier():
    det = detector()
    layout = layout_of(det.amps, height=det.height, width=det.width)
    rng = np.random.default_rng(3)
    truth = rng.poisson(2000, (det.height, det.width)).astype(float)
    box, seen = layout.data, np.empty((det.height, det.width))
    table = {name: {"cti": 1e-5 * (place + 1)} for place, name in enumerate(layout.names) if place != 4}
    for name, (x0, y0, flip_x, _) in zip(layout.names, layout.place, strict=True):
        region = (slice(y0, y0 + box.height), slice(x0, x0 + box.width))
        rows = truth[region][:, ::-1] if flip_x else truth[region]
        out = np.stack([shift_out(row, table.get(name, {}).get("cti", 0.0), box.x0) for row in rows])
        seen[region] = out[:, ::-1] if flip_x else out
    image = seen.astype(np.float32)
    correct_serial_cti(
        image, layout.place, width=box.width, height=box.height, n_prescan=box.x0,
        parameters=cti_parameters(table, layout.names),
    )  # fmt: skip
    np.testing.assert_allclose(image, truth, atol=0.01)
    assert np.abs(seen - truth).max() > 1.0


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("cti", -1e-6), ("cti", 0.5), ("offset_scale", 0.5), ("offset_decay_px", 0.0), ("offset_max_electron", np.nan)],
)
def test_an_impossible_number_names_its_amp(parameter, value):
    with pytest.raises(PayloadError, match=f"C01: {parameter}"):
        cti_parameters({"C01": {parameter: value}}, ["C00", "C01"])
