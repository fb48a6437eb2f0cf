import io
from pathlib import Path

import numpy as np
import pytest
from amp_raws import detector, expose, raw_bytes
from astropy.io import fits

from payloads.raw.segments import SegmentReader, parse_section
from rapid.camera.store import load_camera
from rapid.errors import CorruptRawError, RawError
from rapid.exposure.fits_header import scan
from rapid.exposure.reader import read_info

SHARED = Path(__file__).resolve().parents[4] / "shared/data"
DET = detector()


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(1)
    return expose(DET, rng.poisson(500, (DET.height, DET.width)).astype(float), rng=rng)


def edited(raw, edit):
    hdus = fits.open(io.BytesIO(raw), disable_image_compression=False)
    edit(hdus)
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    hdus.close()
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "rice"])
def test_reads_every_count(stack, compressed):
    segments = SegmentReader().read(scan(raw_bytes(DET, stack, compressed=compressed)), DET)
    assert segments.pixels.dtype == np.int32
    np.testing.assert_array_equal(segments.pixels, stack)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint32, np.int32, np.float32, np.int64])
def test_reads_every_type(stack, dtype):
    pixels = (stack // (2 if dtype == np.int16 else 1)).astype(dtype)
    segments = SegmentReader().read(scan(raw_bytes(DET, pixels)), DET)
    np.testing.assert_array_equal(segments.pixels, pixels)


@pytest.mark.parametrize("kind", ["GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"])
def test_other_compressions(stack, kind):
    def recompress(hdus):
        for place in range(1, 17):
            image = fits.CompImageHDU(stack[place - 1], name=hdus[place].name, compression_type=kind)
            hdus[place] = image

    segments = SegmentReader().read(scan(edited(raw_bytes(DET, stack), recompress)), DET)
    np.testing.assert_array_equal(segments.pixels, stack)


@pytest.mark.parametrize("tile", [(1, 100), (16, 16), (3, 0)], ids=["part of a row", "squares", "three rows"])
def test_rice_tiles_of_any_shape(stack, tile):
    shape = (tile[0], tile[1] or stack.shape[2])

    def recompress(hdus):
        for place in range(1, 17):
            hdus[place] = fits.CompImageHDU(
                stack[place - 1], name=hdus[place].name, compression_type="RICE_1", tile_shape=shape
            )

    segments = SegmentReader().read(scan(edited(raw_bytes(DET, stack), recompress)), DET)
    np.testing.assert_array_equal(segments.pixels, stack)


def test_segments_are_found_by_name_in_any_order(stack):
    def reorder(hdus):
        hdus[1], hdus[16] = hdus[16].copy(), hdus[1].copy()

    segments = SegmentReader().read(scan(edited(raw_bytes(DET, stack), reorder)), DET)
    np.testing.assert_array_equal(segments.pixels, stack)


def test_segments_without_names_are_taken_in_order(stack):
    def unname(hdus):
        for hdu in hdus[1:17]:
            del hdu.header["EXTNAME"]

    segments = SegmentReader().read(scan(edited(raw_bytes(DET, stack), unname)), DET)
    np.testing.assert_array_equal(segments.pixels, stack)


def test_missing_segment_is_named(stack):
    def drop(hdus):
        del hdus["Segment13"]

    with pytest.raises(CorruptRawError, match="Segment13"):
        SegmentReader().read(scan(edited(raw_bytes(DET, stack), drop)), DET)


def test_misshapen_segment_is_an_error(stack):
    def crop(hdus):
        hdus["Segment13"].data = hdus["Segment13"].data[:-1]

    with pytest.raises(CorruptRawError, match="different sizes"):
        SegmentReader().read(scan(edited(raw_bytes(DET, stack), crop)), DET)


def test_other_overscan_is_taken_from_the_header(stack):
    amp = DET.amps[0]
    wider = np.pad(stack, ((0, 0), (0, 5), (0, 7)), constant_values=7)
    section = f"[{amp.data.x0 + 1}:{amp.data.x1},{amp.data.y0 + 1}:{amp.data.y1}]"

    def write(hdus):
        for hdu in hdus[1:17]:
            hdu.header["DATASEC"] = section

    segments = SegmentReader().read(scan(edited(raw_bytes(DET, wider), write)), DET)
    assert segments.amps[0].raw_width == amp.raw_width + 7
    assert segments.amps[0].serial_overscan.width == amp.serial_overscan.width + 7
    assert segments.amps[0].data == amp.data


def test_other_size_without_datasec_is_an_error(stack):
    with pytest.raises(CorruptRawError, match="DATASEC"):
        SegmentReader().read(scan(raw_bytes(DET, np.pad(stack, ((0, 0), (0, 5), (0, 7))))), DET)


@pytest.mark.parametrize("text", ["", "[:]", "[1:2]", None, 17, "[a:b,c:d]"])
def test_broken_section_is_no_section(text):
    assert parse_section(text) is None


def test_section_of_a_flipped_amp():
    assert parse_section("[509:1, 4000:2001]") == (509, 1, 4000, 2001)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real raws are not here")
@pytest.mark.parametrize(
    "name",
    [
        "3019031900001-R10-S02-det029.fits", "7024032100720-R22-S11-det094.fits.fz", "itl_spot.fits.gz",
        "CC_S_20240404_000780_R22_S01.fits", "3018092000065-det000.fits",
    ],
)  # fmt: skip
def test_real_raws_decode_as_by_astropy(name):
    data = (SHARED / name).read_bytes()
    info, structure = read_info(data, uri=name)
    det = load_camera(info.camera).by_id[info.detector]
    segments = SegmentReader().read(structure, det)
    with fits.open(SHARED / name) as hdus:
        for pixels, amp in zip(segments.pixels, segments.amps, strict=True):
            np.testing.assert_array_equal(pixels, hdus[f"SEGMENT{amp.name[1:]}"].data)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real raws are not here")
def test_truncated_real_raw_is_a_raw_error():
    name = "7024032100720-R22-S11-det094.fits.fz"
    data = (SHARED / name).read_bytes()
    det = load_camera("LSSTCam").by_id[94]
    for end in range(1, len(data), 37_777):
        with pytest.raises(RawError):
            SegmentReader().read(scan(data[:end]), det)
