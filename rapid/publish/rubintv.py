"""What goes to RubinTV's bucket: the parcels that a posted exposure, a summary and a night make.

Decides what to offer; the outbox sends. Everything is made from the products and results stores at the moment it is
sent, so that nothing here needs to survive a restart.
"""

import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog

from rapid.camera.models import Camera
from rapid.errors import NotFoundError, StoreError
from rapid.products.naming import night_key
from rapid.products.store import ProductsStore
from rapid.publish.bucket import Bucket
from rapid.publish.decide import Posted, extension_of, product_of
from rapid.publish.keys import FINAL, date_of, image_key, metadata_key, report_plot_key, report_text_key
from rapid.publish.models import CameraSpec, Catalogue, ChannelSpec
from rapid.publish.night import PublishedNight, dump
from rapid.publish.outbox import Outbox, Parcel
from rapid.publish.pictures import timeline_picture, witness_picture
from rapid.publish.report import FIGURES, NightFigure, draw_figure, report_texts
from rapid.publish.status import SentRow
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

CONTENT_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "mp4": "video/mp4"}

TABLE, PICTURE, EXTRA, NIGHT = 0, 1, 2, 3
"""Ranks: the table before pictures, stored pictures before those to be made, what concerns the whole night last."""

OWNERSHIP = 1_000_000
"""More than any number of versions: a picture of a pipeline that comes first replaces any version of another's."""

RECENT_S = 600.0
"""A version that is older when it is heard of was made before this role began, or while it could not read the stores."""

N_HEARD = 5000
"""Versions of summaries remembered; a night has some three thousand."""

N_NIGHTS = 3
"""Nights kept at hand; an older one that changes is read again."""


class BucketDestination:
    """RubinTV's bucket, as an outbox knows it."""

    name = "rubintv"

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def send(self, parcel: Parcel, data: bytes) -> None:
        """Write an object."""
        self._bucket.put(parcel.key, data, content_type=parcel.content_type)

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._bucket.delete(key)


class RubinTVPublisher:
    """Makes the parcels of one camera.

    Parameters
    ----------
    witness
        Asked, in a thread, for the detector that is shown as witness.
    links
        Shown in the night report: address by title.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        camera: Camera,
        results: ResultsStore,
        products: ProductsStore,
        bucket: Bucket,
        outbox: Outbox,
        *,
        run: str = "prompt",
        witness: Callable[[], int] | None = None,
        links: Mapping[str, str] | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.camera = camera
        self.nights: OrderedDict[int, PublishedNight] = OrderedDict()
        self._results = results
        self._products = products
        self._bucket = bucket
        self._outbox = outbox
        self._run = run
        self._witness = witness or (lambda: camera.witness_detector)
        self._links = dict(links or {})
        self.on_published: Callable[[float], None] = lambda _seconds: None
        """Called with the seconds from an exposure's first summary to its row in the bucket."""

        self.on_row: Callable[[SentRow], None] = lambda _row: None
        """Called with every version of a summary once the table in the bucket has it."""

        self._unsent: OrderedDict[str, SentRow] = OrderedDict()
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._counter = itertools.count(1)
        self._owners: dict[str, tuple[str, int]] = {}
        self._movies: dict[str, str] = {}
        self._drawing = threading.Lock()
        self._drawn: tuple[tuple[object, ...], bytes | None] | None = None

    # What happened

    def put(self, found: ExposureSummary | Posted, *, day_obs: int) -> bool:
        """Take in a summary or a posted exposure; return whether it was news."""
        night = self.night_of(day_obs)
        if not night.put(found):
            return False
        if isinstance(found, ExposureSummary):
            self._offer_pictures(found)
        self._offer_tables(night, found)
        return True

    def night_of(self, day_obs: int) -> PublishedNight:
        """Return a night, read from the stores by `read_night` before if it is not today's."""
        night = self.nights.get(day_obs)
        if night is None:
            night = self.nights[day_obs] = PublishedNight(self.catalogue, day_obs)
            while len(self.nights) > N_NIGHTS:
                self._forget(min(self.nights, key=lambda day: (day == day_obs, day)))
        return night

    def _forget(self, day_obs: int) -> None:
        del self.nights[day_obs]
        day = f"/{date_of(day_obs)}/"
        self._owners = {key: owner for key, owner in self._owners.items() if day not in key}

    def known(self, day_obs: int) -> dict[str, str]:
        """Return what the bucket has of a night; blocks.

        Raises
        ------
        StoreError
            Raised if it does not answer.
        """
        found: dict[str, str] = {}
        for camera in self.catalogue.cameras:
            found |= self._bucket.checksums(f"{camera.name}/{date_of(day_obs)}/")
        return found

    def take_known(self, found: Mapping[str, str]) -> None:
        """Take in what the bucket has: it is not sent again, and a movie in it gives way to the next."""
        self._outbox.know(dict(found))
        for key in sorted(found):
            if key.endswith(".mp4"):
                self._movies[key.rsplit("/", 2)[0]] = key

    # The table

    def _offer_tables(self, night: PublishedNight, found: ExposureSummary | Posted) -> None:
        if isinstance(found, ExposureSummary):
            self._note_unsent(found)
        made_at = found.gathered_at if isinstance(found, ExposureSummary) and found.version == 1 else None
        for number, camera in enumerate(self.catalogue.cameras):
            if not camera.columns or (camera.rows == "with_products" and not night.rows_of(camera.name)):
                continue
            has: list[SentRow] = []  # what the document told, as of the moment it was made
            self._outbox.offer(
                Parcel(
                    metadata_key(camera.name, night.day_obs),
                    self._maker_of_table(night, camera.name, has),
                    version=next(self._counter),
                    rank=(TABLE, -night.day_obs, number),
                    content_type="application/json",
                    on_sent=self._teller(made_at, has) if number == 0 else (lambda: None),
                )
            )

    def _note_unsent(self, found: ExposureSummary) -> None:
        """Keep when a version was heard of; the same one again, with plots added, does not count."""
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        heard = SentRow(
            destination=BucketDestination.name,
            exposure=found.exposure,
            pipeline=found.pipeline,
            version=found.version,
            begin_ms=now_ms,
            end_ms=now_ms,
        )
        is_recent = found.gathered_at is not None and now_ms / 1000 - _utc(found.gathered_at).timestamp() < RECENT_S
        if is_recent and heard.field not in self._heard:
            self._heard[heard.field] = None
            self._unsent[heard.field] = heard
        for kept in (self._heard, self._unsent):
            while len(kept) > N_HEARD:
                kept.popitem(last=False)

    def _maker_of_table(self, night: PublishedNight, name: str, has: list[SentRow]) -> Callable[[], bytes]:
        def make() -> bytes:
            has[:] = [row for row in list(self._unsent.values()) if night.has(row.exposure, row.pipeline)]
            return night.document(name)

        return make

    def _teller(self, made_at: datetime | None, has: list[SentRow]) -> Callable[[], None]:
        def tell() -> None:
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            for row in has:
                if self._unsent.pop(row.field, None) is not None:
                    self.on_row(row.model_copy(update={"end_ms": now_ms}))
            if made_at is not None:
                self.on_published(max((datetime.now(UTC) - made_at).total_seconds(), 0.0))

        return tell

    # Pictures

    def _offer_pictures(self, summary: ExposureSummary) -> None:
        for camera in self.catalogue.cameras:
            for channel, spec in camera.channels.items():
                try:
                    self._offer_picture(camera, channel, spec, summary)
                except ValueError as error:
                    log.warning("picture left out", channel=channel, exposure_id=summary.exposure, error=str(error))

    def _offer_picture(self, camera: CameraSpec, channel: str, spec: ChannelSpec, summary: ExposureSummary) -> None:
        make: Callable[[], bytes | None]
        if (found := product_of(spec, summary)) is not None:
            _, product = found
            extension = extension_of(product) or "png"
            rank = PICTURE
            make = lambda: self._products.get(product)  # noqa: E731 - one of three ways
        elif spec.make == "witness" and summary.n_finished and not summary.pipeline.startswith("build_"):
            extension, rank, make = "jpg", EXTRA, lambda: self._witness_of(summary)
        elif spec.make == "timeline" and summary.n_finished and not summary.pipeline.startswith("build_"):
            extension, rank, make = "png", EXTRA, lambda: self._timeline_of(summary)
        else:
            return
        key = image_key(camera.name, summary.day_obs, channel, summary.seq_num, extension)
        epoch = self._own(key, summary)
        if epoch is not None:
            self._outbox.offer(
                Parcel(
                    key,
                    make,
                    version=epoch * OWNERSHIP + summary.version,
                    rank=(rank, -summary.exposure),
                    content_type=CONTENT_TYPES[extension],
                )
            )

    def _own(self, key: str, summary: ExposureSummary) -> int | None:
        """Return the epoch of a key that is this pipeline's to write, or None if it is another's.

        Several pipelines of one exposure may have a picture for one channel: the first by name shows it.
        """
        mine = summary.pipeline
        owner = self._owners.get(key)
        if owner is None:
            self._owners[key] = (mine, 0)
            return 0
        pipeline, epoch = owner
        if pipeline == mine:
            return epoch
        if pipeline < mine:
            return None
        self._owners[key] = (mine, epoch + 1)
        return epoch + 1

    def _witness_of(self, summary: ExposureSummary) -> bytes | None:
        detector = self._witness()
        found = self._results.results(
            summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline, detector=detector
        )
        product = found[0].products.get("binned") if found else None
        if product is None:
            return None
        title = f"{summary.camera} {summary.day_obs} {summary.seq_num}  {found[0].detector_name} ({detector})"
        return witness_picture(self._products.get(product), title=title)

    def _timeline_of(self, summary: ExposureSummary) -> bytes | None:
        asked = (summary.exposure, summary.pipeline, summary.version, summary.gathered_at)
        with self._drawing:  # two cameras show the same picture: it is drawn once
            if self._drawn is None or self._drawn[0] != asked:
                results = self._results.results(
                    summary.exposure, camera=summary.camera, run=summary.run, pipeline=summary.pipeline
                )
                self._drawn = (asked, timeline_picture(summary, results))
            return self._drawn[1]

    # The night as a whole

    def offer_report(self, day_obs: int, *, is_over: bool, last_frame: int | None) -> None:
        """Offer a night's report, its plots and its movie as they stand.

        Parameters
        ----------
        last_frame
            See `last_frame`.
        is_over
            The night has ended: its movie is final.
        """
        night = self.nights.get(day_obs)
        if night is None or not night.n_exposures:
            return
        points = night.points()
        for camera in self.catalogue.cameras:
            if camera.night_report and points:
                self._offer(report_text_key(camera.name, day_obs), lambda: self._texts_of(night), "application/json")
                for figure in FIGURES:
                    if figure.is_due(points):
                        key = report_plot_key(camera.name, day_obs, figure.group, figure.name)
                        self._offer(key, self._figure_maker(figure, night), "image/png")
            for channel, spec in camera.channels.items():
                if spec.make == "movie" and last_frame is not None:
                    self._offer_movie(camera, channel, night, FINAL if is_over else last_frame)

    def _offer(self, key: str, make: Callable[[], bytes | None], content_type: str) -> None:
        self._outbox.offer(Parcel(key, make, version=next(self._counter), rank=(NIGHT,), content_type=content_type))

    def _texts_of(self, night: PublishedNight) -> bytes:
        links = {title: url.replace("{day_obs}", str(night.day_obs)) for title, url in self._links.items()}
        return dump(report_texts(night.points(), camera=self.camera.name, day_obs=night.day_obs, links=links))

    def _figure_maker(self, figure: NightFigure, night: PublishedNight) -> Callable[[], bytes]:
        return lambda: draw_figure(figure, night.points(), camera=self.camera.name, day_obs=night.day_obs)

    def _offer_movie(self, camera: CameraSpec, channel: str, night: PublishedNight, last: int | str | None) -> None:
        """Offer the movie of a night under the number of its last frame, and as final once the night is over.

        RubinTV's players go by the file's name: under the same name they would not look again.
        """
        if last is None:
            return
        key = image_key(camera.name, night.day_obs, channel, last, "mp4")
        folder = key.rsplit("/", 2)[0]
        before = self._movies.get(folder)
        if before is not None and before.endswith(f"_{FINAL}.mp4") and last != FINAL:
            return
        obsolete = (before,) if before is not None and before != key else ()
        self._outbox.offer(
            Parcel(
                key,
                lambda: self._products.get(self._night_product(night.day_obs, "mp4")),
                version=next(self._counter),
                rank=(NIGHT, 1),
                content_type="video/mp4",
                obsolete=obsolete,
                on_sent=lambda: self._movies.__setitem__(folder, key),
            )
        )

    def _night_product(self, day_obs: int, extension: str) -> str:
        return night_key(self.camera.name, day_obs, run=self._run, kind="movie", extension=extension)

    def last_frame(self, day_obs: int) -> int | None:
        """Return the sequence number of the last frame of a night's movie; None if there is no movie. Blocks."""
        try:
            exposures = json.loads(self._products.get(self._night_product(day_obs, "json")))["exposures"]
            return max(int(exposure) for exposure in exposures) % 100_000
        except NotFoundError:
            return None
        except (StoreError, ValueError, TypeError, KeyError) as error:
            log.warning("movie left out", day_obs=day_obs, error=str(error))
            return None


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
