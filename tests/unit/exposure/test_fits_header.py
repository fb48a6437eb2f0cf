"""The scanner reads what astropy reads, and says exactly what is wrong with anything else."""

import gzip
import math
import warnings
from pathlib import Path

import pytest
from astropy.io import fits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_headers import BLOCK, header_bytes, lsstcam_header, raw_bytes

from rapid.errors import CorruptRawError, EmptyRawError, NotFitsError, RapidError, RawError, TruncatedRawError
from rapid.exposure import fits_header
from rapid.exposure.fits_header import scan
from rapid.exposure.reader import read_info

DATA = Path(__file__).resolve().parents[3].parent / "shared/data"
RAWS = ["3018092000065-det000.fits", "3019031900001-R10-S02-det029.fits", "7024032100720-R22-S11-det094.fits.fz",
        "CC_S_20240404_000780_R22_S01.fits", "MC_C_20240918_000013_R00_SG0_guider.fits", "itl_spot.fits.gz"]  # fmt: skip
SMALL = raw_bytes(lsstcam_header())


def _same(ours, theirs) -> bool:
    if isinstance(theirs, fits.card.Undefined):
        return ours is None
    if isinstance(theirs, float):
        return isinstance(ours, float | int) and math.isclose(ours, theirs, rel_tol=1e-15, abs_tol=0.0)
    return type(ours) is type(theirs) and (ours.strip() == theirs.strip() if isinstance(ours, str) else ours == theirs)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", RAWS)
def test_every_card_and_offset_of_real_raws_agrees_with_astropy(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not part of the project")
    structure = scan(path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of cards that the real cameras write
        with fits.open(path, disable_image_compression=True, memmap=False) as hdus:
            assert len(structure.hdus) == len(hdus)
            for ours, theirs in zip(structure.hdus, hdus, strict=True):
                place = theirs.fileinfo()
                assert (ours.data_offset, ours.data_length) == (place["datLoc"], ours.data_length)
                assert -(-ours.data_length // BLOCK) * BLOCK == place["datSpan"]
                seen = set()
                for card in theirs.header.cards:
                    if card.keyword in {"", "COMMENT", "HISTORY", "CONTINUE"} or card.keyword in seen:
                        continue
                    seen.add(card.keyword)
                    assert _same(ours.header[card.keyword], card.value), card.keyword
                assert set(ours.header) == seen


def test_types_are_read_as_written():
    header = header_bytes(
        {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0},
        (
            "INTEGER =                  -42 / a comment",
            "FLOAT   =              1.5D-03",
            "BARE    = 7.",
            "TEXT    = 'O''Neill  '         / quoted",
            "SLASH   = 'a / b'",
            "EMPTY   = ''",
            "NOTHING =                      / undefined",
            "NANNY   = NaN",
            "HIERARCH ESO DET CHIP1 ID = 'ccd' / long",
            "LONG    = 'one &'",
            "CONTINUE  'two &'",
            "CONTINUE  'three' / end",
            "INTEGER =                   99",
            "COMMENT  = is no value",
        ),
    )
    values = scan(header).primary
    assert (values["INTEGER"], values["FLOAT"], values["BARE"]) == (-42, 0.0015, 7.0)
    assert (values["TEXT"], values["SLASH"], values["EMPTY"]) == ("O'Neill", "a / b", "")
    assert values["NOTHING"] is None
    assert values["NANNY"] == "NaN"
    assert values["ESO DET CHIP1 ID"] == "ccd"
    assert values["LONG"] == "one two three"
    assert "COMMENT" not in values
    assert list(values)[3:6] == ["INTEGER", "FLOAT", "BARE"]


def test_compressed_images_are_told_from_tables():
    table = header_bytes(
        {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 1, "PCOUNT": 4, "GCOUNT": 1,
         "ZIMAGE": True, "ZCMPTYPE": "RICE_1", "ZNAXIS": 2}
    ) + bytes(BLOCK)  # fmt: skip
    structure = scan(raw_bytes({}, n_segments=1) + table)
    assert [hdu.is_compressed_image for hdu in structure.hdus] == [False, False, True]
    assert [hdu.is_image for hdu in structure.hdus] == [False, True, True]
    assert structure.hdus[2].data_length == 12


@pytest.mark.parametrize("pad", [b"", b"\0" * BLOCK, b" " * 100], ids=["nothing", "a block of zeros", "blanks"])
def test_padding_at_the_end_is_no_hdu(pad):
    assert len(scan(SMALL + pad).hdus) == 3


def test_the_padding_of_the_last_block_may_be_missing():
    assert len(scan(SMALL[: -(BLOCK - 400)]).hdus) == 3


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", EmptyRawError, "empty"),
        (gzip.compress(b""), EmptyRawError, "holds nothing"),
        (b"SIMP", TruncatedRawError, "first card"),
        (b"\x89PNG\r\n" * 1000, NotFitsError, "not FITS"),
        (b"\0" * 5000, NotFitsError, "not FITS"),
        (SMALL[:2000], TruncatedRawError, "HDU 0: the file ends inside its header"),
        (SMALL[: 2 * BLOCK + BLOCK + 100], TruncatedRawError, r"HDU 1 \(Segment10\): its data end at byte"),
        (SMALL + b"garbage " * 800, CorruptRawError, "no HDU begins at byte"),
        (header_bytes({"SIMPLE": True, "BITPIX": 7, "NAXIS": 0}), CorruptRawError, "HDU 0: BITPIX is 7"),
        (header_bytes({"SIMPLE": True, "BITPIX": 8}), CorruptRawError, "HDU 0: NAXIS is None"),
        (header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 1, "NAXIS1": -5}), CorruptRawError, "NAXIS1 is -5"),
        (header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 1, "NAXIS1": 10**15}), CorruptRawError, "NAXIS1"),
        (header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 1000}), CorruptRawError, "NAXIS is 1000"),
        (gzip.compress(SMALL)[:-200], TruncatedRawError, "gzip stream ends too early"),
        (gzip.compress(SMALL)[:300] + b"\xff" * 300, CorruptRawError, "damaged gzip"),
    ],
    ids=["no bytes", "gzip of no bytes", "four bytes", "a picture", "zeros", "half a header", "half a segment",
         "garbage behind", "an impossible BITPIX", "no NAXIS", "a negative size", "a huge size", "a thousand axes",
         "half a gzip stream", "a broken gzip stream"],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(data, error, message):
    with pytest.raises(error, match=message):
        scan(data)


def test_a_truncated_file_says_how_many_bytes_are_wanted_and_there():
    with pytest.raises(TruncatedRawError) as caught:
        scan(SMALL[:-2600])
    facts = caught.value.to_dict()
    assert facts["hdu"] == 2
    assert facts["got_bytes"] == len(SMALL) - 2600
    assert facts["wanted_bytes"] == len(SMALL) - (BLOCK - 400)


@pytest.mark.parametrize("step", [1, 7, 100, 1 << 20])
def test_a_gzip_file_of_several_members_is_read_whole(monkeypatch, step):
    monkeypatch.setattr(fits_header, "READ_STEP", step)
    parts = [SMALL[:100], SMALL[100:3000], b"", SMALL[3000:]]
    members = b"".join(gzip.compress(part) for part in parts)
    assert bytes(scan(members + bytes(512)).data) == SMALL
    with pytest.raises(TruncatedRawError):
        scan(members[:-50])


def test_a_gzip_file_of_members_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(fits_header, "MAX_MEMBERS", 50)
    with pytest.raises(CorruptRawError, match="more than 50 members"):
        scan(51 * gzip.compress(b""))


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(fits_header, "MAX_EXPANDED", 100_000)
    with pytest.raises(CorruptRawError, match="expands to more than"):
        scan(gzip.compress(bytes(10_000_000)))


def test_gzipped_raws_read_as_if_they_were_not():
    plain, packed = scan(SMALL), scan(gzip.compress(SMALL))
    assert [hdu.header for hdu in plain.hdus] == [hdu.header for hdu in packed.hdus]
    assert bytes(packed.data) == SMALL


def test_a_header_without_end_stops_at_its_limit(monkeypatch):
    monkeypatch.setattr(fits_header, "MAX_HEADER_BLOCKS", 5)
    with pytest.raises(CorruptRawError, match="header without END"):
        scan(SMALL[:80].ljust(BLOCK) + b" " * BLOCK * 10)


def test_a_text_continued_without_end_stops_growing(monkeypatch):
    monkeypatch.setattr(fits_header, "MAX_TEXT", 300)
    cards = ("LONG    = '&'", *["CONTINUE  '" + "x" * 60 + "&'"] * 50)
    text = scan(header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}, cards)).primary["LONG"]
    assert 300 <= len(text) < 400


def test_a_file_of_countless_hdus_stops_at_its_limit(monkeypatch):
    monkeypatch.setattr(fits_header, "MAX_HDUS", 4)
    with pytest.raises(CorruptRawError, match="more than 4 HDUs"):
        scan(raw_bytes({}, n_segments=9))


@settings(max_examples=300, deadline=2000)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=12)), max_size=8),
    st.integers(0, len(SMALL)),
)
@example([], 0)
@example([(0, b"\x1f\x8b")], len(SMALL))
def test_a_damaged_raw_is_read_or_refused_but_never_breaks_the_reader(damage, length):
    data = bytearray(SMALL[:length])
    for place, piece in damage:
        data[place : place + len(piece)] = piece[: max(0, len(data) - place)]
    try:
        info, structure = read_info(bytes(data), uri="MC_O_20251115_000226_R22_S11.fits")
    except RapidError:
        return  # refused for a reason; anything else fails this test
    assert info.exposure_id > 0
    assert all(hdu.data_offset + hdu.data_length <= len(data) for hdu in structure.hdus)


_CARD_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=70)


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.tuples(st.sampled_from(sorted(lsstcam_header())), _CARD_TEXT), min_size=1, max_size=10))
@example([("SEQNUM", "9" * 70)])
@example([("DAYOBS", "'99999999'"), ("OBSID", "'MC_O_99999999_000001'")])
@example([("DATE-BEG", "'0001-01-01T00:00:00+14:00'"), ("MJD-OBS", "1e308")])
def test_any_text_in_any_card_gives_facts_or_a_reason(cards):
    header = lsstcam_header(**{key: ... for key, _ in cards})
    data = raw_bytes(header, n_segments=1, extra=tuple(f"{key:<8}= {text}"[:80] for key, text in cards))
    try:
        info, _ = read_info(data, uri="MC_O_20251115_000226_R22_S11.fits")
    except RawError:
        return
    assert 0 < info.exposure_id < 10**16


def test_a_memoryview_reads_as_bytes_do():
    assert len(scan(memoryview(SMALL)).hdus) == 3
