"""Where the raws of a night are looked up: a directory, a bucket, or a Butler repository that they were ingested into."""

from typing import Any

from rapid.arrival.listing import ExposureRaws, RawListing
from rapid.arrival.models import RawHeader
from rapid.arrival.source import open_source
from rapid.butler.middleware import daf_butler
from rapid.butler.place import from_butler
from rapid.butler.raws import GUIDER, RAW
from rapid.butler.repository import open_reader, passing_errors
from rapid.camera.models import Camera
from rapid.campaign.plan import Listing
from rapid.errors import ConfigurationError

BUTLER = "butler:"


def open_listing(url: str, camera: Camera, *, ingest_run: str = "") -> Listing | None:
    """Return where raws are looked up by night; None if no place is named.

    Parameters
    ----------
    url
        As a head takes it: a directory, ``s3://bucket/prefix``, or ``butler:`` and a repository's root.
    ingest_run
        RUN collection of a repository's raws; ``CAMERA/raw/all`` if empty.

    Raises
    ------
    ConfigurationError
        Raised if it is none of these, or if the Butler is not installed.
    """
    if not url:
        return None
    if url.startswith(BUTLER):
        daf_butler()
        if url == BUTLER:
            raise ConfigurationError("raws", "butler: is followed by the root of a repository")
        return ButlerListing(url.removeprefix(BUTLER), camera, run=ingest_run or f"{camera.name}/raw/all")
    return RawListing(url, camera)


class ButlerListing:
    """Lists the raws of a repository by night: whatever their files are called, the repository knows whose they are.

    Parameters
    ----------
    root
        The repository's root.
    run
        RUN collection of the raws.
    """

    def __init__(self, root: str, camera: Camera, *, run: str) -> None:
        self._root = root
        self._camera = camera
        self._run = run

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is; raises as `rapid.arrival.source.RawSource.read_header`."""
        return open_source(uri.rpartition("/")[0], camera=self._camera).read_header(uri)

    def night(self, day_obs: int) -> dict[int, ExposureRaws]:
        """Return the raws of a night, by exposure id; those whose file is gone are left out.

        Raises
        ------
        ConfigurationError
            Raised if there is no repository.
        StoreError
            Raised if it does not answer.
        """
        found: dict[int, ExposureRaws] = {}
        with passing_errors():
            # Opened anew each time: a Butler belongs to one thread, and whoever lists does so now and then.
            butler = open_reader(self._root)
            try:
                for kind in (RAW, GUIDER):
                    for exposure_id, detector, uri in self._raws(butler, kind, day_obs):
                        raws = found.setdefault(exposure_id, ExposureRaws())
                        (raws.guiders if kind == GUIDER else raws.raws)[detector] = uri
            finally:
                butler.close()
        return found

    def _raws(self, butler: Any, kind: str, day_obs: int) -> list[tuple[int, int, str]]:
        lsst = daf_butler()
        try:
            refs = butler.query_datasets(
                kind,
                collections=self._run,
                data_id={"instrument": self._camera.name, "day_obs": day_obs},
                limit=None,
                explain=False,
            )
        except (lsst.MissingDatasetTypeError, lsst.MissingCollectionError, lsst.DimensionValueError):
            return []  # nothing of the kind, or of the night, has been ingested
        uris = butler.get_many_uris(refs, allow_missing=True) if refs else {}
        return [
            (int(ref.dataId["exposure"]), int(ref.dataId["detector"]), from_butler(str(uris[ref].primaryURI)))
            for ref in refs
            if ref in uris
        ]
