"""One night as RubinTV's tables show it, kept while it may still change."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from rapid.publish.decide import Posted, Row, merge_rows, product_of, row_of
from rapid.publish.models import CameraSpec, Catalogue
from rapid.publish.report import NightPoint, point_of
from rapid.results.models import ExposureSummary


@dataclass
class _Exposure:
    seq_num: int
    versions: dict[str, int] = field(default_factory=dict)
    """By pipeline, the version its rows are of; 0 before the first summary."""

    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    """By camera and pipeline."""

    points: dict[str, NightPoint] = field(default_factory=dict)
    """By pipeline."""


class PublishedNight:
    """The rows of a night, for every camera of the catalogue. Safe for threads.

    Only rows are kept, not summaries: a thousand of those of a large camera would be most of a GB.
    """

    def __init__(self, catalogue: Catalogue, day_obs: int) -> None:
        self.day_obs = day_obs
        self._catalogue = catalogue
        self._exposures: dict[int, _Exposure] = {}
        self._lock = threading.Lock()

    def put(self, found: ExposureSummary | Posted) -> bool:
        """Take in a summary, or an exposure that was only posted; return whether it is news.

        An older version than the one known changes nothing (I10); the same one again does: products were added.
        """
        is_posted = isinstance(found, Posted)
        version = 0 if isinstance(found, Posted) else found.version
        rows = {
            camera.name: row_of(self._catalogue, camera, found)
            for camera in self._catalogue.cameras
            if camera.rows == "all" or (isinstance(found, ExposureSummary) and shows(camera, found))
        }
        with self._lock:
            exposure = self._exposures.setdefault(found.exposure, _Exposure(found.seq_num))
            known = exposure.versions.get(found.pipeline)
            if known is not None and (known > version or (is_posted and known == version)):
                return False
            exposure.versions[found.pipeline] = version
            if isinstance(found, ExposureSummary):
                exposure.points[found.pipeline] = point_of(found)
            for camera in self._catalogue.cameras:
                of_camera = exposure.rows.setdefault(camera.name, {})
                of_camera.pop(found.pipeline, None)
                if camera.name in rows:
                    of_camera[found.pipeline] = rows[camera.name]
        return True

    @property
    def n_exposures(self) -> int:
        """Exposures known."""
        return len(self._exposures)

    def has(self, exposure: int, pipeline: str) -> bool:
        """Whether anything of a pipeline of an exposure is known."""
        with self._lock:
            known = self._exposures.get(exposure)
            return known is not None and pipeline in known.versions

    def rows_of(self, camera: str) -> dict[str, Row]:
        """Return the rows of a camera's table, by sequence number as text, in order.

        Two exposures of one number, which different controllers can take, share a line: the observatory's own
        (the smaller id) comes first.
        """
        with self._lock:
            entries = [
                (exposure.seq_num, exposure_id, dict(exposure.rows.get(camera, {})))
                for exposure_id, exposure in self._exposures.items()
            ]
        table: dict[str, Row] = {}
        for seq_num, _, rows in sorted(entries, key=lambda entry: entry[:2]):
            if rows:
                table.setdefault(str(seq_num), merge_rows(rows))
        return table

    def points(self) -> list[NightPoint]:
        """Return what the night's report keeps, one an exposure, in order of time."""
        with self._lock:
            found = [
                max(
                    exposure.points.items(),
                    key=lambda entry: (not entry[0].startswith("build_"), len(entry[1].metrics)),
                )
                for exposure in self._exposures.values()
                if exposure.points
            ]
        return sorted((point for _, point in found), key=lambda point: (point.seq_num, point.exposure))

    def document(self, camera: str) -> bytes:
        """Return a camera's ``metadata.json`` as it stands now.

        Raises
        ------
        ValueError
            Raised if a number that JSON has no word for got in: rather no new document than one that stops a reader.
        """
        return dump(self.rows_of(camera))


def dump(document: Any) -> bytes:
    """Return JSON that any reader takes: UTF-8, no NaN."""
    return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def shows(camera: CameraSpec, summary: ExposureSummary) -> bool:
    """Whether a summary has a product for one of a camera's channels."""
    return any(product_of(spec, summary) is not None for spec in camera.channels.values())
