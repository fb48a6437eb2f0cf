"""Read S3 event notifications, tolerantly.

The format is that of AWS, MinIO and Ceph. Delivery may be repeated and out of order; a body may be a test
event, or broken in one record: the others count.
"""

import hmac
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

MAX_BODY_BYTES = 4 << 20
"""A thousand records of 4 KB; nobody sends more at once."""

MAX_KEY_BYTES = 1024
"""S3 has no longer keys: a server refuses to be asked for one."""


@dataclass(frozen=True)
class ObjectCreated:
    """An object was written.

    Attributes
    ----------
    sequencer
        Orders the events of one key, as hex digits; empty if the server gives none.
    """

    bucket: str
    key: str
    size_bytes: int | None = None
    etag: str = ""
    sequencer: str = ""


@dataclass(frozen=True)
class NotificationReceipt:
    """What a notification held: how many records were taken, not for us, bad, or without the secret."""

    n_taken: int = 0
    n_ignored: int = 0
    n_bad: int = 0
    n_refused: int = 0


def is_newer(sequencer: str, than: str) -> bool:
    """Whether one event of a key came after another, as far as they tell; unknown counts as newer.

    Sequencers are hex numbers of different lengths, compared as if filled with zeros on the right.

    Examples
    --------
    >>> is_newer("0055AED6DCD90281E6", "0055AED6DCD90281E5"), is_newer("0055", "005501"), is_newer("", "01")
    (True, False, True)
    """
    if not sequencer or not than:
        return True
    width = max(len(sequencer), len(than))
    return sequencer.upper().ljust(width, "0") > than.upper().ljust(width, "0")


def parse_notification(
    body: bytes | str, *, secret: str | None = None
) -> tuple[list[ObjectCreated], NotificationReceipt]:
    """Return the objects that a notification says were created.

    Parameters
    ----------
    body
        The request's or queue message's body.
    secret
        What ``opaqueData`` of every record must say; None asks for nothing. Compared in constant time,
        and never part of any message.

    Returns
    -------
    created : list of ObjectCreated
        In the order of the records.
    receipt : NotificationReceipt
    """
    if len(body) > MAX_BODY_BYTES:
        return [], NotificationReceipt(n_bad=1)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return [], NotificationReceipt(n_bad=1)
    records = document.get("Records") if isinstance(document, dict) else None
    if not isinstance(records, list):
        return [], NotificationReceipt(n_ignored=1)  # s3:TestEvent and other greetings
    created: list[ObjectCreated] = []
    n_ignored = n_bad = n_refused = 0
    for record in records:
        if not isinstance(record, dict):
            n_bad += 1
        elif secret is not None and not _has_secret(record, secret):
            n_refused += 1
        elif not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated:"):
            n_ignored += 1
        elif (one := _created(record)) is None:
            n_bad += 1
        else:
            created.append(one)
    return created, NotificationReceipt(len(created), n_ignored, n_bad, n_refused)


def _has_secret(record: Mapping[str, Any], secret: str) -> bool:
    given = record.get("opaqueData")
    # JSON may hold halves of characters, which no bytes are for: they are not the secret, either.
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _created(record: Mapping[str, Any]) -> ObjectCreated | None:
    """Return what a record says, None if it lacks bucket or key or they are no text that a server could have."""
    s3 = record.get("s3")
    bucket = s3.get("bucket") if isinstance(s3, dict) else None
    thing = s3.get("object") if isinstance(s3, dict) else None
    if not isinstance(bucket, dict) or not isinstance(thing, dict):
        return None
    name, key, size = bucket.get("name"), thing.get("key"), thing.get("size")
    if not isinstance(name, str) or not isinstance(key, str) or not name or not key:
        return None
    key = unquote_plus(key)
    if not (_is_name(name) and _is_name(key)):
        return None
    return ObjectCreated(
        bucket=name,
        key=key,
        size_bytes=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
        etag=str(thing.get("eTag") or "").strip('"'),
        sequencer=str(thing.get("sequencer") or ""),
    )


def _is_name(text: str) -> bool:
    """Whether a text can be asked for over HTTP and told of in Redis: no half of a character, no NUL, not too long."""
    try:
        return len(text.encode()) <= MAX_KEY_BYTES and "\x00" not in text
    except UnicodeEncodeError:
        return False


class Sequencers:
    """Remembers the newest event of each key, to leave out the ones that come late or twice."""

    def __init__(self, remembered: int = 250_000) -> None:
        self._remembered = remembered
        self._newest: OrderedDict[str, str] = OrderedDict()

    def take(self, created: ObjectCreated) -> bool:
        """Whether an event is news of its key; remember it if so."""
        before = self._newest.get(created.key)
        if before is not None and not is_newer(created.sequencer, before):
            return False
        self._newest[created.key] = created.sequencer
        self._newest.move_to_end(created.key)
        while len(self._newest) > self._remembered:
            self._newest.popitem(last=False)
        return True
