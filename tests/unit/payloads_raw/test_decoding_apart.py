"""Hostile files of the kinds that are left to astropy: a clear error, never the end of the process."""

import io
import os
import signal

import numpy as np
import pytest
from astropy.io import fits

from payloads.raw.apart import DecoderApart
from payloads.raw.rice_hdu import readable_buffer
from payloads.raw.segments import decode_image, image_shape
from rapid.errors import CorruptRawError
from rapid.exposure.fits_header import scan

IMAGE = np.random.default_rng(1).poisson(300, (24, 60)).astype(np.int32)


def compressed(kind, **options):
    buffer = io.BytesIO()
    image = fits.CompImageHDU(IMAGE, name="Segment10", compression_type=kind, **options)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(buffer)
    return buffer.getvalue()


def decode(data):
    structure = scan(data)
    hdu = structure.hdus[-1]
    out = np.empty(image_shape(hdu), np.int32)
    other = decode_image(structure, readable_buffer(structure, hdu.data_offset + hdu.data_length), hdu, out)
    return out if other is None else other


def with_card(data, key, value):
    at = data.index(f"{key:8}=".encode())
    return data[:at] + f"{key:8}= {value:>20}".ljust(80).encode() + data[at + 80 :]


def test_damaged_streams_that_kill_c_code_are_errors_and_the_next_image_is_decoded():
    """Bytes of HCOMPRESS streams at random: some of these write outside of their memory in cfitsio."""
    rng = np.random.default_rng(5)
    whole = compressed("HCOMPRESS_1", tile_shape=(24, 60))
    hdu = scan(whole).hdus[-1]
    n_errors = 0
    for _ in range(15):
        damaged = bytearray(whole)
        for place in rng.integers(hdu.data_offset, hdu.data_offset + hdu.data_length, 8):
            damaged[place] = rng.integers(256)
        try:
            assert decode(bytes(damaged)).shape == IMAGE.shape
        except CorruptRawError:
            n_errors += 1
    assert n_errors > 0
    np.testing.assert_array_equal(decode(whole), IMAGE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ZVAL1", "-1"), ("ZVAL2", "-1"), ("ZVAL2", "3"), ("ZVAL1", "2147483647"),
        ("ZTILE2", "-3"), ("TFIELDS", "1000000"), ("TFIELDS", "0"), ("ZNAXIS1", "T"), ("ZNAXIS1", "-60"),
        ("ZNAXIS2", "2147483647"), ("ZBITPIX", "7"), ("ZCMPTYPE", "'NO_SUCH'"), ("TFORM1", "'1PX(9)'"), ("TTYPE1", "'GZIP_COMPRESSED_DATA'"),
    ],
)  # fmt: skip
def test_a_header_that_lies_about_its_compression_is_an_error(key, value):
    with pytest.raises(CorruptRawError):
        decode(with_card(compressed("RICE_1"), key, value))


def test_the_lies_of_another_extension_do_not_matter():
    """Astropy would read every header up to the one that is asked for."""
    lying = with_card(compressed("GZIP_2"), "TFIELDS", "1000000")
    good = compressed("GZIP_2")
    np.testing.assert_array_equal(decode(lying + good[2880:]), IMAGE)


def test_a_process_that_died_is_begun_again_and_one_that_is_too_slow_is_ended():
    decoder = DecoderApart()
    whole = compressed("GZIP_1")
    try:
        np.testing.assert_array_equal(decoder.decode(whole), IMAGE)
        assert decoder._process is not None
        decoder._process.kill()
        decoder._process.wait(60)
        np.testing.assert_array_equal(decoder.decode(whole), IMAGE)
        os.kill(decoder._process.pid, signal.SIGSTOP)
        with pytest.raises(CorruptRawError, match=r"not decoded within 0\.2 s"):
            decoder.decode(whole, timeout_s=0.2)
        with pytest.raises(CorruptRawError):
            decoder.decode(b"no file at all")
        np.testing.assert_array_equal(decoder.decode(whole), IMAGE)
    finally:
        decoder.close()
    decoder.close()
