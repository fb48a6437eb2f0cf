"""A star tracker: an instrument that needs a camera file and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "star_tracker"
NY, NX, SIGMA, N_STARS = 500, 600, 1.6, 60
NAME = "ST_O_20261120_000001_R00_S00.fits"


def write_image(path: Path) -> None:
    rng = np.random.default_rng(11)
    ys, xs = np.indices((NY, NX), dtype=np.float64)
    image = 300 + rng.normal(0, 8, (NY, NX))
    for x, y, flux in zip(
        rng.uniform(20, NX - 20, N_STARS),
        rng.uniform(20, NY - 20, N_STARS),
        rng.uniform(2e4, 2e5, N_STARS),
        strict=True,
    ):
        image += flux / (2 * np.pi * SIGMA**2) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 2 / SIGMA**2)
    header = fits.Header()
    for key, value in {
        "INSTRUME": "StarTrackerDemo", "OBSID": NAME[:20], "CAMCODE": "ST", "CONTRLLR": "O", "DAYOBS": "20261120",
        "SEQNUM": 1, "RAFTBAY": "R00", "CCDSLOT": "S00", "IMGTYPE": "OBJECT", "EXPTIME": 5.0, "FILTER": "none",
        "DATE-BEG": "2026-11-21T03:00:00.000",
    }.items():  # fmt: skip
        header[key] = value
    hdu = fits.ImageHDU(np.clip(image, 0, 65535).astype(np.uint16), name="Segment00")
    fits.HDUList([fits.PrimaryHDU(header=header), hdu]).writeto(path)


def test_a_camera_file_is_all_that_a_star_tracker_needs(tmp_path):
    write_image(tmp_path / NAME)
    done = subprocess.run(
        [sys.executable, "-m", "rapid", "process", str(tmp_path / NAME)],
        env={**os.environ, "RAPID_CAMERA_PATH": str(EXAMPLE)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    found = found[0] if isinstance(found, list) else found
    assert (found["camera"], found["exposure"], found["pipeline"]) == ("StarTrackerDemo", 2026112000001, "quicklook")
    assert found["metrics"]["n_stars"] >= 20
    pixel_arcsec = 1031.3 * 0.0055
    assert abs(found["metrics"]["psf_fwhm_arcsec"] / pixel_arcsec / 2.3548 / SIGMA - 1) < 0.1
