"""Certified calibs: files anybody can read, choices that can be repeated, memory that is shared."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from astropy.io import fits
from numba import njit

from rapid.calibs.store import CalibCache, CalibStore, FrameCalibs
from rapid.errors import ConfigurationError, NotFoundError, StoreError
from rapid.exposure.models import ExposureInfo, ImageType

DAY = datetime(2026, 11, 20, 20, 0)  # noqa: DTZ001 - TAI has no zone
SHAPE = (40, 30)


@pytest.fixture
def store(results, tmp_path):
    return CalibStore(tmp_path / "calibs", results)


def image(value=0.0):
    return (np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE) / 7 + value).astype(np.float32)


def certify(store, value=0.0, *, kind="bias", at=DAY, **changes):
    facts = {"camera": "LSSTCam", "detector": 94, "image": image(value), "valid_from": at, "inputs": [2026112000001]}
    return store.certify(kind=kind, **{**facts, **changes})


def info(*, at=DAY + timedelta(hours=6), physical_filter="r_57", detector=94):
    return ExposureInfo(
        camera="LSSTCam",
        exposure_id=2026112000100,
        obs_id="MC_O_20261120_000100",
        controller="O",
        day_obs=20261120,
        seq_num=100,
        detector=detector,
        detector_name="R22_S11",
        image_type=ImageType.SCIENCE,
        begin=at,
        physical_filter=physical_filter,
    )


def test_a_calib_comes_back_as_it_was_certified(store):
    table = {"C00": {"gain": 1.6}, "C17": {"gain": 1.7}}
    record = certify(store, variance=image(9), table=table, note="by hand", certified_by="pat")
    plane = store.load(record)
    np.testing.assert_array_equal(plane.image, image())
    np.testing.assert_array_equal(plane.variance, image(9))
    assert plane.table == table
    assert plane.calib_id == record.calib_id == "LSSTCam-094-bias-20261120T200000-v1"
    assert store.choose("LSSTCam", 94, "bias", at=DAY) == record


def test_a_calib_is_a_fits_file_readable_anywhere_with_its_checksum(store):
    record = certify(store, variance=image(9), kind="flat", physical_filter="r_57")
    path = store.root / record.path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(hdus[0].data, image())
        np.testing.assert_array_equal(hdus["VARIANCE"].data, image(9))
        assert hdus[0].header["INSTRUME"] == "LSSTCam"
        assert hdus[0].header["FILTER"] == "r_57"
        assert hdus[0].header["INP00001"] == 2026112000001


def test_the_image_is_native_mapped_and_cannot_be_changed(store):
    plane = store.load(certify(store))
    assert plane.image.dtype == np.dtype("=f4")
    assert not plane.image.flags.writeable
    assert plane.image.base is not None

    @njit
    def total(pixels):
        return pixels.sum()

    assert total(plane.image) == pytest.approx(image().sum(), rel=1e-4)
    with pytest.raises(ValueError, match="read-only"):
        plane.image[0, 0] = 1


def test_certifying_the_same_again_changes_nothing(store, results):
    first = certify(store)
    generation = results.calib_generation()
    assert certify(store) == first
    assert results.calib_generation() == generation


def test_other_pixels_are_a_new_version_and_the_first_stays_readable(store):
    first, second = certify(store, 0), certify(store, 1)
    assert (first.version, second.version) == (1, 2)
    np.testing.assert_array_equal(store.load(first).image, image(0))
    np.testing.assert_array_equal(store.load(second).image, image(1))
    assert store.choose("LSSTCam", 94, "bias", at=DAY) == second


def test_an_earlier_choice_can_be_repeated(store):
    first = certify(store, 0)
    before = datetime.now(UTC)
    second = certify(store, 1)
    assert store.choose("LSSTCam", 94, "bias", at=DAY, as_of=before) == first
    assert store.choose("LSSTCam", 94, "bias", at=DAY, as_of=datetime.now(UTC)) == second
    assert store.choose("LSSTCam", 94, "bias", at=DAY, as_of=before - timedelta(days=1)) is None


@pytest.mark.parametrize(
    ("hours", "chosen"),
    [(-1, None), (0, 0), (23, 0), (24, 1), (47, 1), (48, 0)],
    ids=["before all", "first second", "last hour", "the next begins", "its last hour", "after it the first again"],
)
def test_the_calib_chosen_is_the_one_valid_then_that_began_last(store, hours, chosen):
    records = [
        certify(store, 0),
        certify(store, 1, at=DAY + timedelta(hours=24), valid_to=DAY + timedelta(hours=48)),
    ]
    found = store.choose("LSSTCam", 94, "bias", at=DAY + timedelta(hours=hours))
    assert found == (None if chosen is None else records[chosen])


def test_flats_are_per_filter_and_biases_are_not(store):
    flat = certify(store, 1, kind="flat", physical_filter="r_57")
    bias = certify(store, 0)
    assert store.choose("LSSTCam", 94, "flat", at=DAY, physical_filter="r_57") == flat
    assert store.choose("LSSTCam", 94, "flat", at=DAY, physical_filter="i_39") is None
    assert store.choose("LSSTCam", 94, "bias", at=DAY, physical_filter="i_39") == bias
    assert store.choose("LSSTCam", 95, "bias", at=DAY) is None
    assert store.choose("LATISS", 94, "bias", at=DAY) is None


def test_builds_that_end_at_once_keep_all_their_pixels(store):
    with ThreadPoolExecutor(6) as pool:
        records = list(pool.map(lambda value: certify(store, value), range(6)))
    assert sorted(record.version for record in records) == [1, 2, 3, 4, 5, 6]
    for value, record in enumerate(records):
        np.testing.assert_array_equal(store.load(record).image, image(value))


def test_a_lost_or_damaged_native_copy_is_made_again(store):
    record = certify(store)
    store.load(record)
    (copy,) = (store.root / record.path).parent.glob("*.npy")
    for damage in (copy.unlink, lambda: copy.write_bytes(b""), lambda: copy.write_bytes(copy.read_bytes()[:200])):
        damage()
        np.testing.assert_array_equal(store.load(record).image, image())


def test_a_damaged_file_is_never_used(store):
    record = certify(store)
    path = store.root / record.path
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="does not hold what was certified"):
        store.load(record)


def test_a_missing_file_is_not_found(store):
    record = certify(store)
    (store.root / record.path).unlink()
    with pytest.raises(NotFoundError):
        store.load(record)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "../bias"},
        {"physical_filter": "a/b"},
        {"image": np.full(SHAPE, np.nan, dtype=np.float32)},
        {"image": np.zeros(5, dtype=np.float32)},
        {"variance": np.zeros((2, 2), dtype=np.float32)},
    ],
    ids=["a kind that is a path", "a filter that is a path", "NaN pixels", "no picture", "a variance of another shape"],
)
def test_what_cannot_be_a_calib_is_refused(store, changes):
    with pytest.raises(ConfigurationError):
        certify(store, **changes)
    assert store.choose("LSSTCam", 94, "bias", at=DAY) is None


def test_a_worker_sees_a_new_calib_at_its_next_frame(store, results):
    cache = CalibCache(store, results)
    cache.refresh()
    assert FrameCalibs(cache, info()).get("bias") is None
    certify(store, 3)
    assert FrameCalibs(cache, info()).get("bias") is None, "within a job the choice stands"
    cache.refresh()
    plane = FrameCalibs(cache, info()).get("bias")
    np.testing.assert_array_equal(plane.image, image(3))
    cache.refresh()
    assert FrameCalibs(cache, info()).get("bias") is plane


def test_the_cache_is_bounded_and_forgets_the_least_used(store, results):
    for detector in range(4):
        certify(store, detector, detector=detector)
    cache = CalibCache(store, results, max_loaded=2)
    cache.refresh()
    planes = [cache.get(info(detector=detector), "bias") for detector in range(4)]
    assert cache.get(info(detector=3), "bias") is planes[3]
    assert cache.get(info(detector=0), "bias") is not planes[0]
