"""Templates made of some exposures, subtracted from another: what is new is found, and nothing else."""

import io

import numpy as np
import pytest
from astropy.io import fits
from sky_scene import CENTRE, SIZE, Exposure, boresight_of, build, make_stars, subtract_from, take, to_pixels

from payloads.difference.payload import DIFFERENCE_METRICS, DifferenceConfig, SubtractTemplate
from payloads.quality.astrometry import unproject
from rapid.errors import PayloadError

pytestmark = pytest.mark.timeout(900)
"""Compiling the loops anew takes a minute of a core, and more beside other work."""

DITHERS = ((0, 0), (8, -5), (-11, 4), (3, 13))
MADE_OF = [
    Exposure(1 + i, seeing_arcsec=seeing, dither_arcsec=DITHERS[i], angle_deg=angle, transparency=arrived)
    for i, (seeing, angle, arrived) in enumerate(
        ((0.8, 10.0, 1.0), (0.7, 10.0, 0.9), (0.9, 13.0, 1.0), (0.8, 100.0, 0.95))
    )
]
PASSING = (CENTRE[0] - 0.005, CENTRE[1] + 0.004, 20_000.0)
"""In one of the exposures that the templates are made of."""
FLUX_E = 6000.0


@pytest.fixture(scope="module")
def sky():
    return make_stars()


@pytest.fixture(scope="module")
def templates(sky, tmp_path_factory):
    """A folder of templates of four exposures, of which one had something passing."""
    folder = tmp_path_factory.mktemp("templates") / "store"
    exposures = [*MADE_OF[:3], Exposure(**{**vars(MADE_OF[3]), "new": [PASSING]})]
    reports = build(folder, [take(sky, exposure) for exposure in exposures])
    assert [report.reason for report in reports] == ["", ""]
    return folder


def new_sources(n_side=5, reach_arcsec=80.0):
    """Return places and fluxes on a jittered grid."""
    rng = np.random.default_rng(5)
    steps = np.linspace(-reach_arcsec, reach_arcsec, n_side)
    points = np.array([(x, y) for x in steps for y in steps]) + rng.uniform(-4, 4, (n_side**2, 2))
    ra, dec = unproject(points, centre_ra_deg=CENTRE[0], centre_dec_deg=CENTRE[1])
    return [(float(one), float(other), FLUX_E) for one, other in zip(ra, dec, strict=True)]


def places(exposure):
    ra, dec, _ = np.array(exposure.new).T
    return to_pixels(boresight_of(exposure), ra, dec)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"seeing_arcsec": 0.6, "transparency": 1.1},
        {"seeing_arcsec": 1.3, "transparency": 0.7},
        {"angle_deg": 190.0, "dither_arcsec": (6.0, -9.0)},
        {"angle_deg": 100.0, "e1": -0.05, "e2": 0.06},
    ],
    ids=["as the templates", "better seeing", "worse seeing and cloud", "upside down", "other shape"],
)
def test_what_is_new_is_found_where_it_is_and_as_bright(sky, templates, facts) -> None:
    exposure = Exposure(50, new=new_sources(), **facts)
    frame = subtract_from(templates, take(sky, exposure))
    metrics, table = frame.metrics, frame.tables["difference_sources"]
    assert set(DIFFERENCE_METRICS) <= set(metrics)
    assert metrics["difference_note"] is None
    assert metrics["difference_noise_ratio"] == pytest.approx(1.0, abs=0.05)
    x, y, flux, error = (np.array(table[name]) for name in ("x", "y", "flux_e", "flux_error_e"))
    true_x, true_y = places(exposure)
    distance = np.hypot(true_x[:, None] - x, true_y[:, None] - y)
    nearest, found = distance.argmin(axis=1), distance.min(axis=1) < 3.0
    assert np.count_nonzero(found) >= 22  # of 25; some lie on bright stars, or on what is masked
    assert np.median(distance.min(axis=1)) < 0.5
    assert np.quantile(distance.min(axis=1)[found], 0.9) < 1.0
    assert np.median(flux[nearest[found]]) == pytest.approx(FLUX_E, rel=0.06)
    pulls = (flux[nearest[found]] - FLUX_E) / error[nearest[found]]
    assert np.median(np.abs(pulls)) < 1.3
    assert len(x) - len(set(nearest[found].tolist())) <= 2
    assert all(np.array(table["is_positive"])[nearest[found]])


def test_a_sky_that_has_not_changed_leaves_nothing_over(sky, templates) -> None:
    n_sources = 0
    for number, seeing in ((60, 0.8), (61, 0.65), (62, 1.2)):
        frame = subtract_from(templates, take(sky, Exposure(number, seeing_arcsec=seeing)))
        n_sources += frame.metrics["n_difference_sources"]
        assert frame.metrics["difference_star_residual"] < 0.06
        assert frame.metrics["difference_usable_fraction"] > 0.7
    assert n_sources <= 2


def test_what_passed_through_one_of_the_exposures_is_not_in_the_template(sky, templates) -> None:
    frame = subtract_from(templates, take(sky, Exposure(63)))
    table = frame.tables["difference_sources"]
    x, y = to_pixels(boresight_of(Exposure(63)), np.array(PASSING[:1]), np.array(PASSING[1:2]))
    assert not any(np.hypot(a - x[0], b - y[0]) < 10 for a, b in zip(table["x"], table["y"], strict=True))


def test_what_has_gone_is_found_with_a_negative_flux(sky, templates) -> None:
    x, y = to_pixels(boresight_of(Exposure(64)), sky.ra_deg, sky.dec_deg)
    inside = (np.abs(x - SIZE[1] / 2) < 350) & (np.abs(y - SIZE[0] / 2) < 400)
    alone = np.sort(np.hypot(x[:, None] - x, y[:, None] - y), axis=1)[:, 1] > 30
    gone = int(np.flatnonzero(inside & alone & (sky.mag < 21.0) & (sky.mag > 20.0))[0])
    place = (float(x[gone]), float(y[gone]))
    here = type(sky)(*(np.delete(column, gone) for column in (sky.ra_deg, sky.dec_deg, sky.mag)))
    frame = subtract_from(templates, take(here, Exposure(64)))
    table = frame.tables["difference_sources"]
    rows = [
        i
        for i, (x, y) in enumerate(zip(table["x"], table["y"], strict=True))
        if np.hypot(x - place[0], y - place[1]) < 1.5
    ]
    assert len(rows) == 1
    assert table["flux_e"][rows[0]] == pytest.approx(-30.0 * 10 ** (0.4 * (28.0 - sky.mag[gone])), rel=0.1)
    assert not table["is_positive"][rows[0]]
    assert frame.metrics["n_difference_negative"] >= 1


def test_a_header_that_points_beside_the_field_is_put_right_by_the_stars(sky, templates) -> None:
    exposure = Exposure(65, header_error_arcsec=(14.0, -9.0), new=[(CENTRE[0] + 0.004, CENTRE[1] + 0.006, 15_000.0)])
    frame = subtract_from(templates, take(sky, exposure))
    table = frame.tables["difference_sources"]
    assert frame.metrics["difference_offset_arcsec"] == pytest.approx(np.hypot(14.0, 9.0), abs=0.3)
    assert frame.metrics["n_difference_sources"] == 1
    assert table["ra_deg"][0] == pytest.approx(exposure.new[0][0], abs=5e-5)
    assert table["dec_deg"][0] == pytest.approx(exposure.new[0][1], abs=5e-5)


def test_the_binned_difference_is_kept_and_has_what_is_new_in_it(sky, templates) -> None:
    exposure = Exposure(66, new=[(CENTRE[0] + 0.004, CENTRE[1] + 0.006, 40_000.0)])
    frame = subtract_from(templates, take(sky, exposure))
    kept = frame.files["difference"]
    with fits.open(io.BytesIO(kept.data)) as hdus:
        image, header = hdus[0].data, hdus[0].header
    assert image.shape == (SIZE[0] // 8, SIZE[1] // 8)
    assert header["EXPID"] == 2026112000066
    y, x = np.unravel_index(int(np.argmax(image)), image.shape)
    true_x, true_y = places(exposure)
    assert np.hypot(8 * x + 3.5 - true_x[0], 8 * y + 3.5 - true_y[0]) < 8
    assert 64 * image[y - 3 : y + 4, x - 3 : x + 4].sum() == pytest.approx(40_000.0, rel=0.1)


def test_saturated_stars_and_bad_columns_are_no_sources(templates, tmp_path) -> None:
    bright = make_stars(n=200, bright=12.5, faint=22.0, seed=9)
    build(tmp_path / "store", [take(bright, exposure) for exposure in MADE_OF])
    frame = subtract_from(tmp_path / "store", take(bright, Exposure(67)))
    assert frame.metrics["n_saturated_px"] > 10
    assert frame.metrics["difference_note"] is None
    assert frame.metrics["n_difference_sources"] <= 2
    assert 0.5 < frame.metrics["difference_usable_fraction"] < 0.97


@pytest.mark.parametrize(
    ("facts", "config", "why"),
    [
        ({"band": "g"}, {}, "no template of band g here"),
        ({"header_error_arcsec": (7200.0, 0.0)}, {}, "no template of band r here"),
        ({}, {"min_stars": 200}, "too few stars"),
        ({}, {"templates": "away"}, "templates.yaml cannot be read"),
    ],
    ids=["another band", "another field", "few stars", "no folder"],
)
def test_without_a_template_it_says_so_and_is_no_failure(sky, templates, tmp_path, facts, config, why) -> None:
    if "templates" in config:
        config = {"templates": tmp_path / config["templates"]}
    frame = take(sky, Exposure(70, **facts))
    SubtractTemplate(DifferenceConfig(**{"templates": templates, **config})).run(frame)
    assert why in frame.metrics["difference_note"]
    assert set(DIFFERENCE_METRICS) <= set(frame.metrics)
    assert "difference_sources" not in frame.tables
    if why.startswith("no template"):
        assert frame.metrics["template_fraction"] == 0.0


def test_without_a_folder_it_says_how_to_name_one(sky, monkeypatch) -> None:
    monkeypatch.delenv("RAPID_TEMPLATES", raising=False)
    frame = take(sky, Exposure(71))
    SubtractTemplate(DifferenceConfig()).run(frame)
    assert "RAPID_TEMPLATES" in frame.metrics["difference_note"]


def test_the_environment_may_name_the_folder(sky, templates, monkeypatch) -> None:
    monkeypatch.setenv("RAPID_TEMPLATES", str(templates))
    frame = take(sky, Exposure(72))
    SubtractTemplate(DifferenceConfig()).run(frame)
    assert frame.metrics["template_fraction"] > 0.8


def test_an_image_that_is_not_calibrated_is_refused(sky) -> None:
    frame = take(sky, Exposure(73), quality=False)
    with pytest.raises(PayloadError, match="behind that"):
        SubtractTemplate(DifferenceConfig()).run(frame)
    frame.unit = "ADU"
    with pytest.raises(PayloadError, match="electron"):
        SubtractTemplate(DifferenceConfig()).run(frame)
    frame.variance = None
    with pytest.raises(PayloadError, match="behind isr"):
        SubtractTemplate(DifferenceConfig()).run(frame)
