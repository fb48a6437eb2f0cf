"""The movie of a night: every frame is the exposure it is said to be."""

import io

import av
import cv2
import numpy as np
import pytest

from rapid.gather.movie import FOOT_PX, SIDE_PX, FrameStore, encode_movie, keep_frame, make_frame, rate_of, words_of
from tests.support.records import make_summary


def jpeg(level: int, shape=(300, 400)) -> bytes:
    return cv2.imencode(".jpg", np.full(shape, level, np.uint8))[1].tobytes()


def test_frames_come_back_in_order_and_in_their_own_grey():
    levels = [30, 90, 150, 210, 60]
    frames = [keep_frame(make_frame(jpeg(level), words=f"frame {level}")) for level in levels]
    movie = encode_movie(frames, frames_per_s=4)
    assert movie[4:8] == b"ftyp"
    assert movie.find(b"moov") < movie.find(b"mdat"), "a player would have to load all of it first"
    with av.open(io.BytesIO(movie)) as container:
        shown = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 4.0
    assert [frame.shape for frame in shown] == [(SIDE_PX + FOOT_PX, SIDE_PX)] * len(levels)
    found = [int(np.median(frame[SIDE_PX // 2 - 50 : SIDE_PX // 2 + 50])) for frame in shown]
    assert np.abs(np.array(found) - levels).max() < 12


@pytest.mark.parametrize("shape", [(300, 400), (4000, 900), (2, 2), (1, 50)])
def test_any_mosaic_fits_a_frame(shape):
    assert make_frame(jpeg(100, shape), words="r_57 — ″").shape == (SIDE_PX + FOOT_PX, SIDE_PX)


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg(10)[:40]])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match="not a picture"):
        make_frame(data, words="")


def test_no_frames_are_no_movie():
    with pytest.raises(ValueError, match="needs frames"):
        encode_movie([], frames_per_s=4)


@pytest.mark.parametrize(("n", "rate"), [(1, 4), (400, 4), (1000, 10), (3000, 20)])
def test_a_long_night_plays_faster(n, rate):
    assert rate_of(n) == rate


def test_the_words_name_what_is_missing():
    summary = make_summary(7, n_finished=3, n_expected=9, info={"physical_filter": "r_57", "object_name": "DEEP"})
    assert words_of(summary) == "20261120 000007  science  r_57  DEEP  FWHM 0.80 arcsec  3/9"


def test_frames_are_kept_until_they_are_let_go():
    kept = FrameStore()
    for name in "abc":
        kept.put(name, name.encode())
    kept.put("b", b"new")
    kept.keep_only(["b", "c", "d"])
    assert ("a" in kept, "b" in kept, "d" in kept) == (False, True, False)
    assert list(kept.read(["c", "b"])) == [b"c", b"new"]
    with pytest.raises(KeyError):
        list(kept.read(["a"]))
    kept.keep_only([])
    assert "b" not in kept
