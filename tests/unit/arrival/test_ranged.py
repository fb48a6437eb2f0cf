"""Headers read without pixels."""

import gzip

import pytest

from rapid.arrival.ranged import RangedBytes, read_raw_header
from rapid.errors import EmptyRawError, TruncatedRawError
from tests.support.raws import make_raw


def ranged(data, **options):
    asked = []

    def fetch(offset, length):
        asked.append((offset, length))
        return data[offset : offset + length]

    return RangedBytes(len(data), fetch, **options), asked


@pytest.mark.parametrize("ahead", [1, 2880, 1 << 20])
def test_slices_are_those_of_the_bytes(ahead):
    data = bytes(range(256)) * 50
    view, _ = ranged(data, ahead=ahead)
    for start, stop in ((0, 9), (5, 5), (9, 2), (100, 12_000), (12_790, 99_999), (0, 12_800), (3, 4)):
        assert view[start:stop] == data[start:stop]
    assert len(view) == len(data)
    with pytest.raises(ValueError, match="whole ranges"):
        view[::2]


def test_pixels_are_not_read():
    data = make_raw(1, width=5000)
    view, asked = ranged(data, ahead=8 * 1024)
    header = read_raw_header(view, uri="x.fits", camera=None)
    assert header.info.exposure_id == 2026112000001
    assert len(data) > 3_000_000
    assert sum(length for _, length in asked) < len(data) / 20


def test_a_gzipped_raw_is_read_whole():
    view, _ = ranged(gzip.compress(make_raw(1)))
    assert read_raw_header(view, uri="x.fits.gz", camera=None).info.detector == 94


def test_a_file_that_becomes_shorter_meanwhile_is_truncated():
    data = make_raw(1)
    view = RangedBytes(len(data), lambda offset, length: data[: len(data) // 2][offset : offset + length])
    with pytest.raises(TruncatedRawError):
        read_raw_header(view, uri="x.fits", camera=None)


def test_nothing_is_an_empty_raw():
    with pytest.raises(EmptyRawError):
        read_raw_header(ranged(b"")[0], uri="x.fits", camera=None)


@pytest.mark.parametrize("n_bytes", [1, 4, 8])
def test_a_raw_of_a_few_bytes_is_truncated_also_when_it_is_read_in_ranges(n_bytes: int) -> None:
    content = b"SIMPLE  ="[:n_bytes]
    data = RangedBytes(n_bytes, lambda offset, length: content[offset : offset + length])
    with pytest.raises(TruncatedRawError, match="first card"):
        read_raw_header(data, uri="MC_O_20261120_000001_R22_S11.fits", camera=None)
