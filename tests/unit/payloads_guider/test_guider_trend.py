"""A star through the stamps of a guider file."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from payloads.guider.kernels import find_star, measure_star
from payloads.guider.payload import GuiderTrend, times_of
from payloads.plugin import Frame
from payloads.raw.guider import Stamp
from rapid.camera.store import load_camera
from rapid.cli import app
from rapid.errors import CorruptRawError, PayloadError
from rapid.exposure.reader import read_info
from tests.support.guider import GUIDER_NAME, make_guider_raw, make_stamps

SHARED = Path("/work/shared/data")
SCALE = 0.2
N = 40


def frame_of(data: bytes, name: str = GUIDER_NAME) -> Frame:
    info, structure = read_info(data, uri=name)
    camera = load_camera(info.camera)
    return Frame(
        raw=data, info=info, header=structure.hdus[0].header, camera=camera, detector=camera.by_id[info.detector]
    )


def run(data: bytes, **config) -> Frame:
    frame = frame_of(data)
    GuiderTrend(GuiderTrend.Config(**config)).run(frame)
    return frame


def path(drift_px_per_s: float = 0.0, jitter_px: float = 0.0, *, step_s: float = 0.5):
    rng = np.random.default_rng(7)
    time_s = np.arange(N) * step_s
    x = 24.3 + drift_px_per_s * time_s + rng.normal(0, jitter_px, N) if jitter_px else 24.3 + drift_px_per_s * time_s
    return np.asarray(x), np.full(N, 51.7)


def test_centroid_light_and_width_are_those_of_the_star():
    x, y = path(0.1)
    frame = run(make_guider_raw(make_stamps(x, y, sigma_px=2.1)))
    table, metrics = frame.tables["guider_star"], frame.metrics
    np.testing.assert_allclose(table["x_px"], x, atol=0.06)
    np.testing.assert_allclose(table["y_px"], y, atol=0.06)
    np.testing.assert_allclose(table["time_s"], np.arange(N) * 0.5, atol=1e-3)
    assert metrics["guider_flux_median_adu"] == pytest.approx(20_000 * 0.989, rel=0.02)
    assert metrics["guider_fwhm_arcsec_median"] == pytest.approx(2.3548 * 2.1 * SCALE, rel=0.02)
    assert (metrics["guider_n_stamps"], metrics["guider_n_with_star"]) == (N, N)
    assert metrics["guider_drift_x_arcsec_per_min"] == pytest.approx(0.1 * SCALE * 60, rel=0.03)
    assert abs(metrics["guider_drift_y_arcsec_per_min"]) < 0.05
    assert metrics["guider_jitter_x_arcsec"] < 0.01


def test_jitter_is_told_from_drift_and_both_widen_the_image():
    x, y = path(0.1, 0.8)
    metrics = run(make_guider_raw(make_stamps(x, y))).metrics
    rest = x - np.polyval(np.polyfit(np.arange(N), x, 1), np.arange(N))
    assert metrics["guider_jitter_x_arcsec"] == pytest.approx(rest.std() * SCALE, rel=0.05)
    assert metrics["guider_motion_fwhm_arcsec"] == pytest.approx(2.3548 * np.sqrt(x.var() / 2) * SCALE, rel=0.05)


def test_clouds_are_seen_as_a_slope_of_light():
    x, y = path()
    stamps = np.concatenate([
        make_stamps(x[k : k + 1], y[k : k + 1], flux_adu=20_000 * (1 - 0.5 * k / N), seed=k) for k in range(N)
    ])  # fmt: skip
    metrics = run(make_guider_raw(stamps)).metrics
    assert metrics["guider_flux_slope_percent_per_min"] == pytest.approx(-100 * 0.5 / 0.75 * 60 / (N * 0.5), rel=0.1)
    assert abs(metrics["guider_fwhm_slope_arcsec_per_min"]) < 0.1


def test_a_movie_has_a_frame_for_each_stamp():
    x, y = path(0.1)
    file = run(make_guider_raw(make_stamps(x, y))).files["guider_movie"]
    assert (file.extension, file.content_type) == ("mp4", "video/mp4")
    with av.open(io.BytesIO(file.data)) as movie:
        frames = [frame.to_ndarray(format="gray") for frame in movie.decode(video=0)]
    assert len(frames) == N
    assert frames[0].shape == (400, 200)
    bright = np.unravel_index(np.argmax(frames[0]), frames[0].shape)
    assert abs(bright[1] / 4 - 24.8) < 6
    assert abs(bright[0] / 4 - (100 - 52.2)) < 6
    assert "guider_movie" not in run(make_guider_raw(make_stamps(x, y)), movie=False).files


@pytest.mark.parametrize(
    ("stamps", "n_with_star"),
    [
        (make_stamps(np.full(5, 25.0), np.full(5, 50.0), flux_adu=0.0), 0),
        (np.zeros((5, 100, 50), dtype=np.int32), 0),
        (make_stamps(np.array([25.0]), np.array([50.0])), 1),
        (make_stamps(np.array([25.0, 25.5]), np.array([50.0, 50.0])), 2),
    ],
    ids=["noise alone", "nothing but zeros", "one stamp", "two stamps"],
)
def test_what_cannot_be_measured_is_none(stamps, n_with_star):
    metrics = run(make_guider_raw(stamps)).metrics
    assert metrics["guider_n_with_star"] == n_with_star
    assert metrics["guider_jitter_x_arcsec"] is None
    assert (metrics["guider_fwhm_arcsec_median"] is None) == (n_with_star == 0)
    json.dumps(metrics, allow_nan=False)


def test_a_cosmic_ray_is_no_star():
    stamps = make_stamps(np.full(6, 25.0), np.full(6, 50.0), flux_adu=0.0)
    stamps[2, 20:23, 10:13] += 30_000
    assert find_star(stamps.astype(np.float32)) is None


def test_a_stamp_that_lost_the_star_is_left_out():
    x, y = path()
    stamps = make_stamps(x, y)
    stamps[10] = make_stamps(x[:1], y[:1], flux_adu=0.0)[0]
    frame = run(make_guider_raw(stamps))
    assert frame.tables["guider_star"]["x_px"][10] is None
    assert frame.metrics["guider_n_with_star"] == N - 1


def test_stamps_that_do_not_say_when_have_no_slopes():
    x, y = path(0.1)
    metrics = run(make_guider_raw(make_stamps(x, y), said=False)).metrics
    assert metrics["guider_drift_x_arcsec_per_min"] is None
    assert metrics["guider_jitter_x_arcsec"] is not None


@pytest.mark.parametrize(
    "times",
    [[61000.0, "2026-11-21T03:00:00", 61000.1], [61000.0, float("inf"), 61000.1], [61000.0, None, 61000.1]],
    ids=["two clocks", "never", "one does not say"],
)
def test_times_that_make_no_series_are_none(times):
    assert times_of([Stamp(np.zeros((2, 2), dtype=np.float32), time) for time in times]) is None


def test_a_star_that_is_not_there_is_not_measured():
    empty = np.zeros((30, 30), dtype=np.float32)
    assert measure_star(empty, (15.0, 15.0)) is None


def test_no_guider_file_is_refused():
    frame = frame_of(make_guider_raw(make_stamps(*path())))
    frame.info = frame.info.model_copy(update={"is_guider": False})
    with pytest.raises(PayloadError, match="guider file"):
        GuiderTrend(GuiderTrend.Config()).run(frame)
    with pytest.raises(CorruptRawError, match="no image"):
        run(make_guider_raw(np.zeros((0, 4, 4), dtype=np.int32)))


def test_the_command_shows_it_for_a_file(tmp_path):
    file = tmp_path / GUIDER_NAME
    file.write_bytes(make_guider_raw(make_stamps(*path(0.1))))
    answer = CliRunner().invoke(app, ["process", str(file)])
    assert answer.exit_code == 0, answer.output
    assert '"guider_n_with_star": 40' in answer.output


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real raws are not here")
def test_a_real_guider_file_without_light_has_no_star():
    name = "MC_C_20240918_000013_R00_SG0_guider.fits"
    frame = frame_of((SHARED / name).read_bytes(), name)
    GuiderTrend(GuiderTrend.Config()).run(frame)
    table = frame.tables["guider_star"]
    assert (frame.metrics["guider_n_stamps"], frame.metrics["guider_n_with_star"]) == (102, 0)
    assert 0.5 < table["time_s"][1] < 1.0
