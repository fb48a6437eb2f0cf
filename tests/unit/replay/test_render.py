"""What is rendered can be measured again: the truth is in the pixels."""

import numpy as np
import pytest

from payloads.isr.assemble import assemble
from payloads.raw.segments import SegmentReader
from rapid.camera.store import load_camera
from rapid.exposure.models import ImageType
from rapid.exposure.reader import read_info
from replay.fits_writer import raw_bytes
from replay.plan import NightPlan
from replay.render import Renderer, donut_radius_px, donut_template
from replay.simulate import primary_header

CAMERA = load_camera("LSSTComCam")
PLAN = NightPlan.model_validate(
    {
        "camera": "LSSTComCam",
        "day_obs": 20261120,
        "seed": 3,
        "detectors": [4],
        "blocks": [
            {"kind": "bias", "n": 1},
            {"kind": "dark", "n": 1, "exposure_time_s": 100},
            {"kind": "flat", "n": 2, "physical_filter": "r_03", "level_e": 30000},
            {"kind": "science", "n": 1, "physical_filter": "r_03", "seeing_arcsec": 0.8},
        ],
    }
)
BIAS, DARK, FLAT_A, FLAT_B, SCIENCE = PLAN.exposures()
DETECTOR = CAMERA.by_id[4]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(CAMERA, PLAN.seed)


@pytest.fixture(scope="module")
def stacks(renderer) -> dict[str, np.ndarray]:
    taken = {"bias": BIAS, "dark": DARK, "flat_a": FLAT_A, "flat_b": FLAT_B, "science": SCIENCE}
    return {name: renderer.render(exposure, DETECTOR)[0] for name, exposure in taken.items()}


def imaging(stack: np.ndarray, place: int) -> np.ndarray:
    amp = DETECTOR.amps[place]
    level = np.median(stack[place][: amp.data.height, amp.data.x1 + 4 :], axis=1)
    return stack[place][amp.data.slices].astype(np.float64) - level[:, None]


def test_a_written_raw_holds_what_was_rendered_and_the_planned_facts(stacks):
    data = raw_bytes(primary_header(SCIENCE, CAMERA, DETECTOR), stacks["science"], DETECTOR)
    info, structure = read_info(data, uri="x.fits")
    segments = SegmentReader().read(structure, DETECTOR)
    assert np.array_equal(segments.pixels, stacks["science"])
    assert (info.exposure_id, info.detector, info.image_type) == (SCIENCE.exposure_id, 4, ImageType.SCIENCE)
    assert (info.physical_filter, info.begin, info.exposure_time_s) == ("r_03", SCIENCE.begin, 30.0)
    assert (info.group_id, info.group_index, info.group_size) == (SCIENCE.group_id, 1, 1)
    assert info.airmass == pytest.approx(1 / np.sin(np.radians(SCIENCE.elevation_deg)), abs=1e-6)
    assert info.focus_z_mm == pytest.approx(SCIENCE.focus_z_mm)
    assert info.can_see_sky
    assert info.simulated


def test_the_same_exposure_renders_the_same_and_another_does_not(renderer, stacks):
    again, _ = Renderer(CAMERA, PLAN.seed).render(BIAS, DETECTOR)
    assert np.array_equal(again, stacks["bias"])
    other, _ = Renderer(CAMERA, PLAN.seed + 1).render(BIAS, DETECTOR)
    assert not np.array_equal(other, stacks["bias"])


def test_read_noise_and_gain_are_those_of_the_truth(renderer, stacks):
    truth = renderer.truth_of(DETECTOR)
    for place in (0, 5, 15):
        amp, electronics = DETECTOR.amps[place], truth.amps[place]
        overscan = stacks["bias"][place][: amp.data.height, amp.data.x1 + 4 :].astype(float)
        noise_e = (overscan - overscan.mean(axis=1, keepdims=True)).std() * electronics.gain
        assert noise_e == pytest.approx(electronics.read_noise, rel=0.02)
        a, b = imaging(stacks["flat_a"], place), imaging(stacks["flat_b"], place)
        good = slice(200, 1800)
        difference = (a - b)[good]
        keep = np.abs(difference - np.median(difference)) < 5 * difference.std()
        signal = (a + b)[good][keep].mean() / 2
        variance = difference[keep].var() / 2 - (electronics.read_noise / electronics.gain) ** 2
        assert signal / variance == pytest.approx(electronics.gain, rel=0.01)


def test_dark_current_and_hot_pixels_are_there(renderer, stacks):
    truth = renderer.truth_of(DETECTOR)
    dark = assemble(as_segments(stacks["dark"]), DETECTOR) - assemble(as_segments(stacks["bias"]), DETECTOR)
    gains = np.empty_like(dark)
    for amp, electronics in zip(DETECTOR.amps, truth.amps, strict=True):
        gains[amp.trimmed.slices] = electronics.gain
    electrons = dark * gains
    assert np.median(electrons) == pytest.approx(truth.dark_current_e_s * 100, abs=0.7)
    hot = electrons[truth.hot_y, truth.hot_x]
    assert np.median(hot / (truth.hot_rate_e_s * 100)) == pytest.approx(1.0, abs=0.05)


def as_segments(stack: np.ndarray):
    from payloads.raw.segments import Segments

    return Segments(stack.astype(np.float32), DETECTOR.amps)


def test_crosstalk_follows_its_matrix(renderer):
    counts = np.zeros((16, 4, 600), dtype=np.float32)
    truth = renderer.truth_of(DETECTOR)
    for place, amp in enumerate(truth.amps):
        counts[place] += amp.bias_level_adu
    counts[3] += 100_000 / truth.amps[3].gain
    renderer._add_crosstalk(counts, truth)
    for target in (0, 2, 4, 10):
        leaked_e = (counts[target].mean() - truth.amps[target].bias_level_adu) * truth.amps[target].gain
        assert leaked_e == pytest.approx(100_000 * truth.crosstalk[target, 3], abs=0.02)


def test_stars_have_the_size_and_place_of_the_truth(renderer, stacks):
    import galsim

    stack, stars = renderer.render(SCIENCE, DETECTOR)
    image = assemble(as_segments(stack), DETECTOR)
    for amp, electronics in zip(DETECTOR.amps, renderer.truth_of(DETECTOR).amps, strict=True):
        image[amp.trimmed.slices] = (image[amp.trimmed.slices] - electronics.bias_level_adu) * electronics.gain
    measured = []
    for x, y, flux in zip(stars.x, stars.y, stars.flux_e, strict=True):
        near = np.hypot(stars.x - x, stars.y - y) < 60
        if not (5e4 < flux < 4e5 and near.sum() == 1 and 60 < x < 4010 and 60 < y < 3940):
            continue
        stamp = image[int(y) - 24 : int(y) + 25, int(x) - 24 : int(x) + 25]
        stamp = stamp - np.median(stamp)
        moments = galsim.hsm.FindAdaptiveMom(galsim.Image(np.ascontiguousarray(stamp)), strict=False)
        if not moments.error_message:
            dx = moments.moments_centroid.x - 1 + int(x) - 24 - x
            dy = moments.moments_centroid.y - 1 + int(y) - 24 - y
            measured.append((dx, dy, moments.moments_sigma, moments.observed_shape.e1, moments.observed_shape.e2))
    table = np.array(measured)
    assert len(table) >= 8
    assert np.abs(np.median(table[:, :2], axis=0)).max() < 0.05
    assert np.median(table[:, 3]) == pytest.approx(stars.e1, abs=0.01)
    assert np.median(table[:, 4]) == pytest.approx(stars.e2, abs=0.01)
    # A Moffat of index 3.5: adaptive moments see 2.355 sigma some 12 % above its width at half maximum.
    assert 2.355 * np.median(table[:, 2]) / stars.fwhm_px == pytest.approx(1.11, abs=0.04)


def test_a_donut_has_the_diameter_of_the_beam():
    template = donut_template(1.5, 1.5, 1.234, 0.01, ())
    assert template.sum() == pytest.approx(1.0, abs=1e-4)
    half = template.shape[0] // 2
    profile = template[half]
    inside = np.flatnonzero(profile > profile.max() / 2)
    assert (inside[-1] - inside[0]) / 2 == pytest.approx(donut_radius_px(1.5, 1.234, 0.01), abs=1.5)
    assert template[half, half] < 0.05 * template.max()
