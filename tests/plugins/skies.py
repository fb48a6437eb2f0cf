"""All-sky JPEGs of a known truth."""

import io

import numpy as np
from PIL import Image

SIZE = 800


def make_sky(*, n_stars: int = 4000, cloudy_columns: int = 0, level: float = 25.0, seed: int = 1) -> bytes:
    """Return a JPEG of a night sky; clouds from the left hide stars and glow."""
    rng = np.random.default_rng(seed)
    image = rng.normal(level, 1.5, (SIZE, SIZE))
    x, y = rng.uniform(5, SIZE - 5, n_stars), rng.uniform(5, SIZE - 5, n_stars)
    for star_x, star_y, peak in zip(x, y, rng.uniform(40, 160, n_stars), strict=True):
        if star_x < cloudy_columns:
            continue
        ix, iy = round(star_x), round(star_y)
        grid_y, grid_x = np.mgrid[iy - 4 : iy + 5, ix - 4 : ix + 5]
        image[iy - 4 : iy + 5, ix - 4 : ix + 5] += peak * np.exp(
            -((grid_x - star_x) ** 2 + (grid_y - star_y) ** 2) / 2.4
        )
    image[:, :cloudy_columns] += 15.0
    grid_y, grid_x = np.indices(image.shape)
    image[np.hypot(grid_x - SIZE / 2, grid_y - SIZE / 2) > SIZE / 2] = 2.0
    out = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2026:11:21 03:20:00", 0x829A: 30.0})
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def make_small() -> bytes:
    """Return a JPEG of another camera's size."""
    out = io.BytesIO()
    Image.new("RGB", (100, 50)).save(out, "JPEG")
    return out.getvalue()
