"""Where a played night goes: a directory, a bucket, or straight to the head's arrival door; and to the board.

A target takes keys and bytes. Whatever spoils, delays or loses raws on the way is a target around another.
"""

import contextlib
import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote_plus

from rapid.camera.models import Camera
from rapid.control.store import ControlStore
from rapid.dispatch.board import Board
from rapid.errors import ConfigurationError, NotFoundError, StoreError
from rapid.exclusions.models import ExcludedAlreadyError, Target
from rapid.exclusions.store import ExclusionStore
from rapid.next_visit import store as visits
from rapid.products.s3 import parse_store_url
from rapid.products.store import open_products
from rapid.requests.models import RequestRecord, RequestSpec, RequestState
from rapid.requests.store import RequestBoard
from rapid.results.store import ResultsStore
from replay.events import (
    CancelEvent,
    ControlEvent,
    ExclusionEvent,
    RequestEvent,
    VisitCanceledEvent,
    VisitEvent,
)
from replay.fits_writer import write_whole

NOTIFY_TIMEOUT_S = 10.0


class RawTarget(Protocol):
    """Takes raws and side-cars."""

    def put(self, key: str, data: bytes) -> None:
        """Deliver a file under its key below the raw store's root."""
        ...


class DirectoryTarget:
    """A directory that a head watches; files appear whole."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> None:
        """Write a file; the camera's own folder is the root.

        Raises
        ------
        StoreError
            Raised if the directory takes nothing.
        """
        try:
            write_whole(self._root / key.split("/", 1)[1], data)
        except OSError as error:
            raise StoreError(f"{self._root} takes no raws: {error}") from error


class BucketTarget:
    """A bucket, with a notification to the head for every object, as a server of buckets sends it.

    Parameters
    ----------
    url
        ``s3://bucket/prefix?endpoint_url=...``.
    notify_url
        The head's ``/notify``; none is sent if it is left out, and the head's listing finds the object.
    secret
        What ``opaqueData`` says.

    Raises
    ------
    ConfigurationError
        Raised, naming what is wrong, for a URL that is none.
    """

    def __init__(self, url: str, *, notify_url: str = "", secret: str = "") -> None:
        if notify_url and not notify_url.startswith(("http://", "https://")):
            raise ConfigurationError("notify", f"{notify_url!r} is no URL of a head: http://head:9090/notify")
        self._place = parse_store_url(url)
        self._store = open_products(url)
        self._notify_url = notify_url
        self._secret = secret
        self._sequence = 0

    def put(self, key: str, data: bytes) -> None:
        """Put an object and tell of it.

        Raises
        ------
        StoreError
            Raised if the bucket or the head does not answer.
        """
        self._store.put(key, data, content_type="application/fits")
        if self._notify_url:
            self._tell(key, len(data))

    def _tell(self, key: str, size_bytes: int) -> None:
        self._sequence += 1
        path = f"{self._place.path}/{key}" if self._place.path else key
        record: dict[str, Any] = {
            "eventVersion": "2.1",
            "eventName": "ObjectCreated:Put",
            "eventTime": datetime.now(UTC).isoformat(),
            "s3": {
                "bucket": {"name": self._place.bucket},
                "object": {"key": quote_plus(path), "size": size_bytes, "sequencer": f"{self._sequence:016X}"},
            },
        }
        if self._secret:
            record["opaqueData"] = self._secret
        request = urllib.request.Request(  # noqa: S310 - the URL is the operator's
            self._notify_url,
            data=json.dumps({"Records": [record]}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=NOTIFY_TIMEOUT_S) as answer:  # noqa: S310
                answer.read()
        except OSError as error:
            raise StoreError(f"{self._notify_url} takes no notification: {error}") from error


class SinkTarget:
    """A function that takes key and bytes."""

    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self.put = put


class SystemDoor:
    """What is asked of a running system beside its raws: control, requests, announcements, exclusions, its clock.

    Parameters
    ----------
    results
        For exclusions, which are kept there; none are played without it.
    """

    def __init__(
        self,
        camera: Camera,
        board: Board,
        *,
        control: ControlStore | None = None,
        results: ResultsStore | None = None,
    ) -> None:
        self._camera = camera
        self._board = board
        self._control = control
        self._requests = RequestBoard(board.connection, camera.name)
        self._exclusions = ExclusionStore(results.engine) if results is not None else None
        self.tickets: dict[str, str] = {}
        """By the recorded request's id, the id of the one that was played."""

    def set_rate(self, rate: float) -> None:
        """Let the system's clock run as fast as the night; 0 stops it."""
        self._board.set_clock_rate(rate)

    def change_control(self, event: ControlEvent) -> None:
        """Change the control state."""
        if self._control is None:
            raise ConfigurationError("control", "this target takes no control changes")
        reason = event.reason or "replay"
        self._control.change(event.change, by=event.by or "replay", door="replay", reason=reason)

    def ask(self, event: RequestEvent) -> str:
        """Post a request; returns its ticket."""
        spec = RequestSpec.model_validate_json(json.dumps(event.spec))
        ticket = self._requests.post(spec, by=event.by, door=event.door or "redis")
        self.tickets[event.request_id] = ticket
        return ticket

    def cancel(self, event: CancelEvent) -> None:
        """Cancel a request that was played."""
        ticket = self.tickets.get(event.request_id)
        if ticket is not None:
            self._requests.cancel(ticket, by=event.by)

    def announce(self, event: VisitEvent) -> None:
        """Announce exposures, for as long as they were announced then."""
        talk = visits.announce(self._board.prefix, event.visit, life_s=event.life_s, now_ms=self._board.now_ms())
        self._board.connection.run(talk)

    def cancel_visit(self, event: VisitCanceledEvent) -> None:
        """Take an announcement back."""
        self._board.connection.run(visits.cancel(self._board.prefix, event.group))

    def exclude(self, event: ExclusionEvent) -> None:
        """Switch a detector or an amp off."""
        if self._exclusions is None:
            raise ConfigurationError("exclusions", "this target takes none: give it the results store")
        detector = self._camera.by_name.get(event.detector)
        if detector is None:
            raise ConfigurationError("exclusions", f"{self._camera.name} has no detector {event.detector}")
        target = Target(detector=detector.id, detector_name=detector.name, amp=event.amp or None)
        try:
            self._exclusions.exclude(
                self._camera.name,
                [target],
                reason=event.reason,
                author=event.author or "replay",
                valid_from=event.valid_from,
                valid_to=event.valid_to,
                now=datetime.now(UTC),
            )
        except ExcludedAlreadyError:
            return  # the night is played again

    def unsettled(self) -> Iterator[str]:
        """Tell of requests that are not done yet: of those that wait for exposures, none may come any more."""
        for recorded, record in self.asked().items():
            if not (record.state.is_final or record.state is RequestState.WAITING):
                yield f"request {recorded} is {record.state.value}"

    def asked(self) -> Mapping[str, RequestRecord]:
        """Return the requests that were played, by the recorded request's id; without those that the board forgot."""
        found: dict[str, RequestRecord] = {}
        for recorded, ticket in self.tickets.items():
            with contextlib.suppress(NotFoundError):
                found[recorded] = self._requests.read(ticket)
        return found
