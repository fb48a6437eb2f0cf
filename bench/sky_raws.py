"""Full-size raws of a sky with stars, for the benchmarks: what `replay` renders, with any number of stars."""

from replay.fits_writer import header, raw_bytes
from replay.plan import NightPlan, PlannedExposure
from replay.render import Renderer
from replay.simulate import primary_header

CAMERA_NAME = "LSSTCam"
DAY_OBS = 20261120


def plan_exposure(*, stars_per_detector: int = 2000, n: int = 1) -> list[PlannedExposure]:
    """Return exposures of 30 s in r with so many stars on a CCD."""
    plan = NightPlan.model_validate(
        {
            "camera": CAMERA_NAME,
            "day_obs": DAY_OBS,
            "stars_per_detector": stars_per_detector,
            "blocks": [{"kind": "science", "n": n, "physical_filter": "r_57", "seeing_arcsec": 0.8}],
        }
    )
    return plan.exposures()


def make_sky_raw(detector_id: int = 94, *, stars_per_detector: int = 2000) -> bytes:
    """Return the raw of one CCD of 16 Rice-compressed amps."""
    exposure = plan_exposure(stars_per_detector=stars_per_detector)[0]
    renderer = Renderer(_camera(), 1)
    detector = _camera().by_id[detector_id]
    stack, _ = renderer.render(exposure, detector)
    return raw_bytes(primary_header(exposure, _camera(), detector), stack, detector)


class SkyRaws:
    """Raws of a whole focal plane from the pixels of a few CCDs: each has its own primary header.

    Parameters
    ----------
    n_distinct
        CCDs that are really rendered, of each vendor in proportion.
    """

    def __init__(self, n_distinct: int, *, stars_per_detector: int = 2000) -> None:
        self.camera = _camera()
        self.exposure = plan_exposure(stars_per_detector=stars_per_detector)[0]
        renderer = Renderer(self.camera, 1)
        science = [self.camera.by_id[number] for number in sorted(self.camera.science_ids)]
        by_vendor: dict[str, list] = {}
        for detector in science:
            by_vendor.setdefault(detector.vendor, []).append(detector)
        self._bodies: dict[str, list[bytes]] = {}
        for vendor, detectors in by_vendor.items():
            n = max(1, round(n_distinct * len(detectors) / len(science)))
            self._bodies[vendor] = []
            for detector in detectors[:: max(1, len(detectors) // n)][:n]:
                stack, _ = renderer.render(self.exposure, detector)
                whole = raw_bytes({}, stack, detector)
                self._bodies[vendor].append(whole[len(_primary({})) :])
        self.n_distinct = sum(len(bodies) for bodies in self._bodies.values())

    def raw(self, detector_id: int) -> bytes:
        """Return one CCD's raw."""
        detector = self.camera.by_id[detector_id]
        bodies = self._bodies[detector.vendor]
        return _primary(primary_header(self.exposure, self.camera, detector)) + bodies[detector_id % len(bodies)]


def _primary(keys) -> bytes:
    mandatory = (
        ("SIMPLE", True, "conforms to FITS standard"),
        ("BITPIX", 8, ""),
        ("NAXIS", 0, ""),
        ("EXTEND", True, ""),
    )
    return header((*mandatory, *((key, value, "") for key, value in keys.items())))


def _camera():
    from rapid.camera.store import load_camera

    return load_camera(CAMERA_NAME)
