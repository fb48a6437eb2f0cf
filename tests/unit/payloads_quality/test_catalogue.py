"""A catalogue on disk gives the stars of a circle, whoever wrote it."""

from datetime import date

import numpy as np
import pytest
from astropy.table import Table

from payloads.quality.catalogue import (
    ReferenceCatalogue,
    separation_deg,
    tile_name,
    tile_of,
    tiles_around,
    write_catalogue,
)
from rapid.errors import ConfigurationError, StoreError

RNG = np.random.default_rng(1)


def write(folder, ra, dec, mag, **facts):
    return write_catalogue(
        folder, ra, dec, {"r": mag}, **{"name": "test", "system": "AB", "made_on": date(2026, 1, 2), **facts}
    )


@pytest.mark.parametrize(
    ("ra", "dec"),
    [(60.0, -30.0), (0.001, 0.0), (359.99, -0.01), (123.0, 89.7), (10.0, -89.9), (200.0, 60.0), (5.0, -90.0)],
)
@pytest.mark.parametrize("radius", [0.1, 2.0])
def test_a_circle_has_all_its_stars_and_no_others(tmp_path, ra, dec, radius):
    rng = np.random.default_rng(2)
    n = 1500
    # Stars all over the sky's neighbourhood of the place, poles and the meridian of zero included.
    z = np.clip(np.sin(np.radians(dec)) + rng.normal(0, 0.02, n), -1, 1)
    decs = np.degrees(np.arcsin(z))
    ras = np.where(np.abs(decs) > 85, rng.uniform(0, 360, n), ra + rng.normal(0, 1.5, n)) % 360
    ras[:50], decs[:50] = ra, np.clip(dec + rng.uniform(-radius, radius, 50), -90, 90)
    mags = rng.uniform(16, 22, n)
    mags[::7] = np.nan
    write(tmp_path / "c", ras, decs, mags)
    found = ReferenceCatalogue(tmp_path / "c").stars_around(ra, dec, radius, "r")
    inside = (separation_deg(ra, dec, ras, decs) <= radius) & np.isfinite(mags)
    assert len(found) == inside.sum() > 0
    np.testing.assert_allclose(found.mag, np.sort(mags[inside]), atol=1e-5)


def test_every_star_is_in_a_tile_that_its_surroundings_name():
    ra, dec = RNG.uniform(0, 360, 300), np.degrees(np.arcsin(RNG.uniform(-1, 1, 300)))
    for zone, tile, r, d in zip(*tile_of(ra, dec), ra, dec, strict=True):
        assert (int(zone), int(tile)) in set(tiles_around(r, d, 1e-6))


def test_an_ecsv_tile_written_by_hand_serves_as_well(tmp_path):
    zone, tile = (int(v) for v in tile_of(60.0, -30.5))
    (tmp_path / "tiles").mkdir()
    (tmp_path / "catalogue.yaml").write_text("name: by hand\nsystem: AB\nbands: [r, i]\nmade_on: 2026-01-02\n")
    Table({"ra_deg": [60.0, 60.001], "dec_deg": [-30.5, -30.5], "mag_r": [18.0, 17.0]}).write(
        tmp_path / "tiles" / f"{tile_name(zone, tile)}.ecsv"
    )
    found = ReferenceCatalogue(tmp_path).stars_around(60.0, -30.5, 0.1, "r")
    assert found.mag.tolist() == [17.0, 18.0]
    assert len(ReferenceCatalogue(tmp_path).stars_around(60.0, -30.5, 0.1, "i")) == 0
    assert len(ReferenceCatalogue(tmp_path).stars_around(200.0, 30.5, 0.1, "r")) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("name: x\nsystem: Vega\nbands: [r]\nmade_on: 2026-01-02\n", "system"),
        ("name: x\nsystem: AB\nbands: []\nmade_on: 2026-01-02\n", "bands"),
        ("name: x\nsystem: AB\nbands: [r]\nmade_on: 2026-01-02\nextra: 1\n", "extra"),
        ("- a list", "catalogue.yaml"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_folder_that_is_no_catalogue_says_why(tmp_path, text, message):
    if text is not None:
        (tmp_path / "catalogue.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        ReferenceCatalogue(tmp_path)


def test_a_damaged_tile_is_named(tmp_path):
    write(tmp_path / "c", [60.0], [-30.5], [18.0])
    (tile,) = (tmp_path / "c/tiles").iterdir()
    tile.write_bytes(b"SIMPLE  = nonsense")
    with pytest.raises(StoreError, match=tile.name):
        ReferenceCatalogue(tmp_path / "c").stars_around(60.0, -30.5, 0.1, "r")
    Table({"a": [1]}).write(tile, overwrite=True)
    with pytest.raises(StoreError, match="ra_deg"):
        ReferenceCatalogue(tmp_path / "c").stars_around(60.0, -30.5, 0.1, "r")


def test_a_catalogue_is_not_written_over_something(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not empty"):
        write(tmp_path, [60.0], [-30.5], [18.0])
    with pytest.raises(ValueError, match="length"):
        write(tmp_path / "c", [60.0, 61.0], [-30.5], [18.0])
    with pytest.raises(ValueError, match="declination"):
        write(tmp_path / "c", [60.0], [-91], [18.0])
    assert write(tmp_path / "c", [], [], []) == 0
