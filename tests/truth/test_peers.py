"""The same input gives the peers' answers: cfitsio on bytes, ccdproc on pixels, photutils and sep on sky and sources."""

import io
import warnings

import ccdproc
import fitsio
import numpy as np
import pytest
import sep
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.stats import SigmaClip
from photutils.background import Background2D, SExtractorBackground
from photutils.detection import DAOStarFinder

from payloads.isr.payload import Isr, IsrConfig
from payloads.quality.sky import detect_sources, measure_sky
from payloads.raw.segments import SegmentReader
from rapid.exposure.fits_header import scan
from rapid.worker.run import RawInput, make_frame
from tests.truth.observatory import FILTER, Calibs


@pytest.fixture(scope="module")
def science(observatory):
    exposure = observatory.plan(
        {"kind": "science", "n": 1, "physical_filter": FILTER, "seeing_arcsec": 0.9}, stars_per_detector=150
    )[0]
    raw, stars = observatory.take(exposure)
    return exposure, raw, stars


def test_counts_are_cfitsios(observatory, science, tmp_path):
    _, raw, _ = science
    (tmp_path / "raw.fits.fz").write_bytes(raw)
    ours = SegmentReader().read(scan(raw), observatory.detector)
    with fitsio.FITS(str(tmp_path / "raw.fits.fz")) as hdus:
        for amp, pixels in zip(observatory.detector.amps, ours.pixels, strict=True):
            np.testing.assert_array_equal(pixels, hdus[f"SEGMENT{amp.name[1:]}"].read())


def by_ccdproc(raw, amp, *, gain, calibs, dark_time_s):
    """Return an amp's calibrated pixels in the order of the read-out: overscan, trim, gain, bias, dark, flat."""
    with fits.open(io.BytesIO(raw), memmap=False) as hdus:
        ccd = CCDData(np.asarray(hdus[f"SEGMENT{amp.name[1:]}"].data, dtype=np.float64), unit="adu")
    part = amp.trimmed.slices
    turn = (slice(None, None, -1 if amp.flip_y else 1), slice(None, None, -1 if amp.flip_x else 1))
    planes = {kind: calibs.get(kind).image[part][turn].astype(np.float64) for kind in ("bias", "dark", "flat")}
    ccd = ccdproc.subtract_overscan(
        ccd, overscan=ccd[:, amp.serial_overscan.x0 + 3 : amp.serial_overscan.x1 - 3], median=True, overscan_axis=1
    )
    ccd = ccdproc.trim_image(ccd[amp.data.slices])
    ccd = ccdproc.gain_correct(ccd, gain * units.electron / units.adu)
    ccd = ccdproc.subtract_bias(ccd, CCDData(planes["bias"], unit="electron"))
    ccd = ccdproc.subtract_dark(
        ccd, CCDData(planes["dark"], unit="electron"), dark_exposure=1 * units.s, data_exposure=dark_time_s * units.s,
        scale=True,
    )  # fmt: skip
    return ccdproc.flat_correct(ccd, CCDData(planes["flat"], unit=""), norm_value=1.0).data


def test_calibrated_pixels_are_ccdprocs(observatory, science):
    exposure, raw, _ = science
    known = {kind: observatory.calibs.get(kind) for kind in ("bias", "dark", "flat", "ptc")}
    frame, _ = make_frame(RawInput("science", raw), camera=observatory.camera)
    frame.calibs = Calibs(**known)
    Isr(IsrConfig(parallel_overscan=False)).run(frame)
    for amp, truth in zip(observatory.detector.amps, observatory.truth.amps, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ccdproc's own
            theirs = by_ccdproc(raw, amp, gain=truth.gain, calibs=Calibs(**known), dark_time_s=exposure.dark_time_s)
        ours = frame.image[amp.trimmed.slices][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        mask = frame.mask[amp.trimmed.slices][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        off = np.abs(ours - theirs)[mask == 0]
        flat = known["flat"].image[amp.trimmed.slices][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        # Rows whose overscan has an outlier differ: ours leaves it out. One count of a row's level is 1.5 electrons.
        assert np.median(off) < 0.004, amp.name
        assert np.mean(off > 0.02 + 1e-6 * np.abs(theirs[mask == 0])) < 0.2, amp.name
        assert (off * flat[mask == 0]).max() < 1.6, amp.name


@pytest.fixture(scope="module")
def image(observatory, science):
    frame, _ = make_frame(RawInput("science", science[1]), camera=observatory.camera)
    frame.calibs = observatory.calibs
    Isr(IsrConfig()).run(frame)
    return frame


def test_the_background_is_photutils_and_seps(image):
    sky = measure_sky(image.image, image.mask, factor=1)
    bad = image.mask != 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Background2D(
            image.image, 128, filter_size=3, mask=bad, sigma_clip=SigmaClip(3.0),
            bkg_estimator=SExtractorBackground(),
        )  # fmt: skip
    seps = sep.Background(image.image, mask=bad, bw=128, bh=128, fw=3, fh=3)
    assert sky.level == pytest.approx(theirs.background_median, rel=0.001)
    assert sky.level == pytest.approx(seps.globalback, rel=0.001)
    assert sky.noise == pytest.approx(seps.globalrms, rel=0.02)
    assert sky.noise == pytest.approx(theirs.background_rms_median, rel=0.03)


def test_the_sources_are_photutils_and_seps(image, science):
    _, _, stars = science
    sky = measure_sky(image.image, image.mask, factor=1)
    ours = detect_sources(sky, threshold_sigma=10.0)
    bad = image.mask != 0
    level = sep.Background(image.image, mask=bad, bw=128, bh=128)
    flat = image.image - level.back()
    seps = sep.extract(flat, 10.0, err=level.globalrms, mask=bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DAOStarFinder(threshold=10 * level.globalrms, fwhm=stars.fwhm_px)(flat, mask=bad)
    columns = theirs.colnames
    x_name, y_name = ("x_centroid", "y_centroid") if "x_centroid" in columns else ("xcentroid", "ycentroid")
    peers = {"sep": (seps["x"], seps["y"]), "photutils": (np.array(theirs[x_name]), np.array(theirs[y_name]))}
    for name, (x, y) in peers.items():
        # Every clear star that a peer finds, we find, and the other way round, at the same place.
        clear = stars.flux_e > 25_000
        for sx, sy in zip(stars.x[clear], stars.y[clear], strict=True):
            if not (20 < sx < flat.shape[1] - 20 and 20 < sy < flat.shape[0] - 20):
                continue
            there, here = np.hypot(x - sx, y - sy).min(), np.hypot(ours.x - sx, ours.y - sy).min()
            assert (there < 1.5) == (here < 1.5), name
        near = [np.hypot(x - a, y - b).min() for a, b in zip(ours.x, ours.y, strict=True)]
        assert np.mean(np.array(near) < 1.0) > 0.9, name
