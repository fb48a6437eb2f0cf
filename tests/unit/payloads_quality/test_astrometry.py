"""Pixels on the sky, and stars found in a catalogue whatever the header's pointing error."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from payloads.quality.astrometry import (
    Pointing,
    match_points,
    orientations,
    pixels_to_field_angle,
    project,
    solve,
    unproject,
)
from payloads.quality.catalogue import CatalogueStars, separation_deg
from rapid.camera.store import load_camera

CAMERA = load_camera("LSSTCam")


def test_projection_is_astropys_gnomonic_one():
    rng = np.random.default_rng(1)
    ra, dec = 359.9 + rng.uniform(-1, 1, 50), -60 + rng.uniform(-1, 1, 50)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [359.9, -60], [1, 1], [0, 0]
    expected = np.column_stack(wcs.world_to_pixel_values(ra % 360, dec)) + 1
    points = project(ra, dec, centre_ra_deg=359.9, centre_dec_deg=-60)
    np.testing.assert_allclose(points / 3600, expected, atol=1e-9)
    back_ra, back_dec = unproject(points, centre_ra_deg=359.9, centre_dec_deg=-60)
    np.testing.assert_allclose(back_ra, ra % 360, atol=1e-10)
    np.testing.assert_allclose(back_dec, dec, atol=1e-10)
    assert np.isnan(project(179.9, 60, centre_ra_deg=359.9, centre_dec_deg=-60)).all()


@pytest.mark.parametrize("angle", [0.0, 40.0, 250.0])
@pytest.mark.parametrize("parity", [1, -1])
def test_the_position_angle_of_the_focal_planes_y_is_that_of_the_pointing(angle, parity):
    pointing = Pointing(60.0, -30.0, angle, parity)
    ra, dec = unproject(pointing.to_plane([0, 0], [0.5, 0]), centre_ra_deg=60, centre_dec_deg=-30)
    centre = SkyCoord(ra[1], dec[1], unit="deg")
    up = SkyCoord(ra[0], dec[0], unit="deg")
    assert centre.position_angle(up).deg == pytest.approx(angle, abs=1e-6)
    assert centre.separation(up).deg == pytest.approx(0.5, rel=1e-4)
    ra, dec = unproject(pointing.to_plane([0.5], [0]), centre_ra_deg=60, centre_dec_deg=-30)
    across = centre.position_angle(SkyCoord(ra[0], dec[0], unit="deg")).deg
    assert (across - angle) % 360 == pytest.approx(90 if parity == 1 else 270, abs=1e-4)


def make_sky(detector, pointing, *, offset=(0.0, 0.0), roll_deg=0.0, n=80, n_extra=300, seed=3):
    """Return x, y of stars on a CCD and a catalogue lookup of the true sky, seen with a wrong header."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, detector.width, n), rng.uniform(0, detector.height, n)
    angles = pixels_to_field_angle(CAMERA, detector, x, y)
    truth = Pointing(pointing.ra_deg, pointing.dec_deg, pointing.angle_deg + roll_deg, pointing.parity)
    points = truth.to_plane(*angles) + np.asarray(offset)
    centre = points.mean(axis=0)
    noise = rng.normal(0, 0.05, points.shape)
    others = centre + rng.uniform(-600, 600, (n_extra, 2))
    ra, dec = unproject(np.vstack((points + noise, others)), centre_ra_deg=60, centre_dec_deg=-30)
    order = rng.permutation(len(ra))
    ra, dec = ra[order], dec[order]

    def stars_around(ra_deg, dec_deg, radius_deg):
        near = separation_deg(ra_deg, dec_deg, ra, dec) <= radius_deg
        return CatalogueStars(ra[near], dec[near], np.full(near.sum(), 18.0))

    # A third of the CCD's stars are in no catalogue.
    extra = rng.uniform(0, 4000, (n // 3, 2))
    return np.append(x, extra[:, 0]), np.append(y, extra[:, 1]), stars_around, points


@pytest.mark.parametrize("detector", [94, 0, 188, 171])
@pytest.mark.parametrize(("offset", "roll"), [((0.0, 0.0), 0.0), ((25.0, -41.0), 0.3), ((-8.0, 3.0), -0.1)])
def test_stars_are_found_and_the_pointing_error_comes_out(detector, offset, roll):
    det = CAMERA.by_id[detector]
    pointing = Pointing(60.0, -30.0, 17.0)
    # A roll about the boresight shifts an outer CCD: that is part of its pointing error.
    reach = 1.2 * (np.hypot(*offset) + np.hypot(det.x_mm, det.y_mm) * 20 * np.radians(abs(roll))) + 20
    x, y, lookup, truth = make_sky(det, pointing, offset=offset, roll_deg=roll)
    solution = solve(CAMERA, det, pointing, x, y, lookup, radius_arcsec=reach)
    assert solution is not None
    assert solution.turned == ""
    found = project(solution.ra_deg[:80], solution.dec_deg[:80], centre_ra_deg=60, centre_dec_deg=-30)
    assert np.abs(found - truth).max() < 0.06
    assert solution.match.rms_arcsec == pytest.approx(0.05, rel=0.25)
    assert len(solution.match.first) >= 75
    assert solution.match.rotation_deg == pytest.approx(-roll, abs=0.01)
    assert solution.match.scale == pytest.approx(1.0, abs=2e-4)
    middle = pixels_to_field_angle(CAMERA, det, (det.width - 1) / 2, (det.height - 1) / 2)
    here = pointing.to_plane(*middle)
    there = Pointing(60.0, -30.0, 17.0 + roll).to_plane(*middle) + np.asarray(offset)
    np.testing.assert_allclose(solution.match.apply(here) - here, there - here, atol=0.05)


@pytest.mark.parametrize(("angle", "parity"), [(17.0, -1), (-17.0, 1), (107.0, 1), (197.0, -1)])
def test_a_header_with_another_meaning_of_its_angle_is_still_solved(angle, parity):
    det = CAMERA.by_id[94]
    x, y, lookup, _ = make_sky(det, Pointing(60.0, -30.0, angle, parity), offset=(5.0, 5.0))
    solution = solve(CAMERA, det, Pointing(60.0, -30.0, 17.0), x, y, lookup)
    assert solution is not None
    assert solution.turned
    assert (solution.pointing.angle_deg % 360, solution.pointing.parity) == (angle % 360, parity)


def test_the_headers_orientation_comes_first_and_none_comes_twice():
    found = [(p.angle_deg % 360, p.parity) for p, _ in orientations(Pointing(1, 2, 17.0))]
    assert found[0] == (17.0, 1)
    assert len(found) == len(set(found)) == 16
    assert len(orientations(Pointing(1, 2, 90.0))) == 8


@pytest.mark.parametrize("seed", range(8))
def test_fields_that_have_nothing_in_common_are_not_matched(seed):
    rng = np.random.default_rng(seed)
    assert match_points(rng.uniform(0, 800, (60, 2)), rng.uniform(0, 800, (400, 2)), radius_arcsec=60) is None


@pytest.mark.parametrize(("n", "m"), [(0, 0), (4, 400), (100, 0), (100, 4)])
def test_too_few_stars_on_either_side_make_no_match(n, m):
    rng = np.random.default_rng(1)
    assert match_points(rng.uniform(0, 800, (n, 2)), rng.uniform(0, 800, (m, 2)), radius_arcsec=60) is None


def test_a_shift_beyond_the_radius_is_not_found():
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 800, (60, 2))
    assert match_points(points, points + np.array([80.0, 0.0]), radius_arcsec=60) is None
    assert match_points(points, points + np.array([50.0, 0.0]), radius_arcsec=60) is not None


def test_the_same_star_many_times_over_is_no_crash():
    points = np.zeros((50, 2))
    match_points(points, points, radius_arcsec=60)
