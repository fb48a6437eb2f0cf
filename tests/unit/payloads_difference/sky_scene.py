"""A small sky of known stars, and calibrated images of it: any pointing, angle, seeing and transparency."""

from dataclasses import dataclass, field

import numpy as np

from payloads.difference.align import Contribution, align, star_rows
from payloads.difference.build import build_templates
from payloads.difference.payload import DifferenceConfig, SubtractTemplate
from payloads.difference.sky_map import sky_map_of
from payloads.difference.store import make_store
from payloads.mask import BAD, CR, INTRP, SAT
from payloads.plugin import Frame
from payloads.quality.astrometry import Pointing, pixels_to_field_angle, project, unproject
from payloads.quality.payload import ImageQuality, QualityConfig
from rapid.camera.store import load_camera
from rapid.exposure.models import ExposureInfo, ImageType
from replay.kernels import add_stars

CENTRE = (60.02, -30.04)
"""Near the corner of four tiles."""
EXPTIME_S = 30.0
ZERO_POINT = 28.0
SKY_E = 1200.0
READ_NOISE_E = 6.0
SATURATION_E = 90_000.0
SIZE = (1100, 1000)
SCALE_ARCSEC = 0.4
BETA = 3.5


def small_camera():
    """Return LSSTCam with its central detector cut down to 1000 x 1100 pixels."""
    camera = load_camera("LSSTCam")
    detector = camera.by_id[94].model_copy(update={"width": SIZE[1], "height": SIZE[0]})
    return camera, detector


CAMERA, DETECTOR = small_camera()


@dataclass(frozen=True)
class Sky:
    """Stars: places [deg] and magnitudes."""

    ra_deg: np.ndarray
    dec_deg: np.ndarray
    mag: np.ndarray


def make_stars(*, n=260, seed=3, bright=17.0, faint=22.5, size_deg=0.1) -> Sky:
    rng = np.random.default_rng(seed)
    mag = np.log10(rng.uniform(10 ** (0.3 * bright), 10 ** (0.3 * faint), n)) / 0.3
    points = rng.uniform(-1800 * size_deg, 1800 * size_deg, (n, 2))
    ra, dec = unproject(points, centre_ra_deg=CENTRE[0], centre_dec_deg=CENTRE[1])
    return Sky(ra, dec, mag)


@dataclass
class Exposure:
    """How an exposure is taken."""

    number: int
    seeing_arcsec: float = 0.8
    transparency: float = 1.0
    angle_deg: float = 10.0
    dither_arcsec: tuple[float, float] = (0.0, 0.0)
    header_error_arcsec: tuple[float, float] = (0.0, 0.0)
    e1: float = 0.02
    e2: float = -0.01
    new: list[tuple[float, float, float]] = field(default_factory=list)
    """Right ascension, declination and flux [electron] of what is in this one only."""
    n_cosmic_rays: int = 20
    band: str = "r"


def boresight_of(exposure: Exposure) -> Pointing:
    """Return a boresight that brings the detector's middle to the sky's, and a dither."""
    angles = pixels_to_field_angle(CAMERA, DETECTOR, (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
    offset = Pointing(0.0, 0.0, exposure.angle_deg).to_plane(*angles)[0]
    point = -offset + np.asarray(exposure.dither_arcsec)
    ra, dec = unproject(point[None], centre_ra_deg=CENTRE[0], centre_dec_deg=CENTRE[1])
    return Pointing(float(ra[0]), float(dec[0]), exposure.angle_deg)


def to_pixels(pointing: Pointing, ra, dec):
    """Return pixels of positions, by trial: nothing of the code under test."""
    centre = {"centre_ra_deg": pointing.ra_deg, "centre_dec_deg": pointing.dec_deg}
    target = project(ra, dec, **centre)
    guess = np.tile([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2], (len(target), 1))
    corner = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    for _ in range(6):
        here = pointing.to_plane(*pixels_to_field_angle(CAMERA, DETECTOR, guess[:, 0], guess[:, 1]))
        base = pointing.to_plane(*pixels_to_field_angle(CAMERA, DETECTOR, corner[:, 0], corner[:, 1]))
        slope = np.column_stack((base[1] - base[0], base[2] - base[0])) / 100.0
        guess = guess + np.linalg.solve(slope, (target - here).T).T
    return guess[:, 0], guess[:, 1]


def take(sky: Sky, exposure: Exposure, *, quality: bool = True) -> Frame:
    """Return a calibrated frame, measured by payload `quality`."""
    rng = np.random.default_rng(1000 + exposure.number)
    pointing = boresight_of(exposure)
    new = np.array(exposure.new, np.float64).reshape(-1, 3)
    flux = EXPTIME_S * exposure.transparency * 10 ** (0.4 * (ZERO_POINT - sky.mag))
    x, y = to_pixels(pointing, np.concatenate((sky.ra_deg, new[:, 0])), np.concatenate((sky.dec_deg, new[:, 1])))
    flux = np.concatenate((flux, new[:, 2]))
    scale = CAMERA.plate_scale_arcsec_per_mm * DETECTOR.pixel_mm
    alpha = exposure.seeing_arcsec / scale / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    light = np.zeros(SIZE, np.float32)
    n = len(x)
    e1, e2 = np.full(n, exposure.e1), np.full(n, exposure.e2)
    add_stars(light, x, y, flux, np.full(n, alpha), e1, e2, BETA, np.full(n, 40))
    light += SKY_E * exposure.transparency
    image = (light + rng.normal(size=SIZE) * np.sqrt(light + READ_NOISE_E**2)).astype(np.float32)
    mask = np.zeros(SIZE, np.int32)
    full = light > SATURATION_E
    image[full] = SATURATION_E
    mask[full] |= SAT
    for _ in range(exposure.n_cosmic_rays):
        cx, cy = rng.integers(5, SIZE[1] - 15), rng.integers(5, SIZE[0] - 5)
        image[cy, cx : cx + 8] += 3000
        mask[cy, cx : cx + 8] |= CR
    column = 333
    image[:, column] = np.nan_to_num(image[:, column - 1])
    mask[:, column] |= BAD | INTRP
    error = np.asarray(exposure.header_error_arcsec)[None]
    ra, dec = unproject(error, centre_ra_deg=pointing.ra_deg, centre_dec_deg=pointing.dec_deg)
    info = ExposureInfo(
        camera="LSSTCam",
        exposure_id=20261120_00000 + exposure.number,
        obs_id=f"MC_O_20261120_{exposure.number:06d}",
        controller="O",
        day_obs=20261120,
        seq_num=exposure.number,
        detector=94,
        detector_name="R22_S11",
        image_type=ImageType.SCIENCE,
        exposure_time_s=EXPTIME_S,
        physical_filter=f"{exposure.band}_57",
        band=exposure.band,
        airmass=1.1,
        ra_deg=float(ra[0]),
        dec_deg=float(dec[0]),
        rotator_angle_deg=exposure.angle_deg,
    )
    frame = Frame(
        raw=None,
        info=info,
        header={},
        camera=CAMERA,
        detector=DETECTOR,
        image=image,
        mask=mask,
        variance=(np.maximum(image, 0) + READ_NOISE_E**2).astype(np.float32),
        unit="electron",
    )
    if quality:
        ImageQuality(QualityConfig()).run(frame)
    return frame


def contribution_of(frame: Frame) -> Contribution:
    """Return what a template may be made of."""
    info, loss = frame.info, frame.metrics["aperture_loss_mag"]
    stars = frame.tables["stars"]
    return Contribution(
        exposure_id=info.exposure_id,
        camera=frame.camera,
        detector=frame.detector,
        exposure_time_s=info.exposure_time_s,
        sky_map=sky_map_of(frame.camera, frame.detector, ra_deg=info.ra_deg, dec_deg=info.dec_deg, stars=stars),
        stars=star_rows(stars, aperture_loss_mag=loss),
        fwhm_arcsec=frame.metrics["psf_fwhm_arcsec"],
        load=lambda: (frame.image, frame.variance, frame.mask),
    )


def build(folder, frames, *, band="r", **options):
    """Build templates of frames; return the reports."""
    aligned, left_out = align([contribution_of(frame) for frame in frames])
    assert left_out == []
    store = make_store(folder, scale_arcsec=SCALE_ARCSEC)
    return list(build_templates(aligned, store, band=band, **options))


def subtract_from(folder, frame, **config) -> Frame:
    """Run the payload on a frame."""
    SubtractTemplate(DifferenceConfig(templates=folder, **config)).run(frame)
    return frame
