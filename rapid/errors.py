"""The errors of Rapid Analysis, and which to raise when.

Every error is a fact with a policy. It carries a stable ``code`` (safe for programs to compare),
the facts as typed arguments, a message built here, and `retry`: whether doing the same again can help.

* `RawError`: this raw cannot be processed. Its subclasses say what is wrong with it; the arrival
  door turns every one of them into a quarantine record (invariant I1).
* `PayloadError`: science code failed on one detector. ``retry`` decides between another attempt and
  a dead letter.
* `ConfigurationError`: a setting, camera, pipeline or pattern is wrong. A person has to act.
* `NotFoundError`: something was asked for by name or id and is not there.
* `StoreError`: a store or server did not answer as it should. Usually worth a retry.
* `RefusedError`: the caller is not, or no longer, entitled to do this (fencing, tokens, full queue).

Built-in exceptions keep their meaning for programming mistakes: `ValueError` for a bad argument of
a pure function, `TypeError` for a wrong type. Nobody raises bare `Exception` or `RuntimeError`.
"""

from enum import StrEnum
from typing import Any, ClassVar


class Retry(StrEnum):
    """What a repetition of the failed action can achieve."""

    LATER = "later"
    """The cause may pass: try again, a bounded number of times."""

    NEVER = "never"
    """The same input fails the same way: set it aside with its reason."""

    IGNORE = "ignore"
    """Nothing was lost and nothing needs doing."""


class RapidError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message
        One sentence for a person.
    **facts
        JSON-compatible facts for programs and logs.
    """

    code: ClassVar[str] = "rapid_error"
    retry: ClassVar[Retry] = Retry.NEVER

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def to_dict(self) -> dict[str, Any]:
        """Return code, message, retry policy and facts, ready for JSON."""
        return {"code": self.code, "message": self.message, "retry": self.retry.value, **self.facts}


class RawError(RapidError):
    """A raw cannot be processed; it is to be quarantined."""

    code = "raw_unusable"


class EmptyRawError(RawError):
    """A raw holds no bytes."""

    code = "raw_empty"


class NotFitsError(RawError):
    """A file is not FITS."""

    code = "raw_not_fits"


class TruncatedRawError(RawError):
    """A raw ends before its headers say it should."""

    code = "raw_truncated"


class CorruptRawError(RawError):
    """A raw's structure contradicts itself (bad header card, lying table, impossible tile)."""

    code = "raw_corrupt"


class WrongCameraError(RawError):
    """A raw is from another camera than the one it was offered to."""

    code = "raw_wrong_camera"


class HeaderError(RawError):
    """A needed header key is missing or has an impossible value."""

    code = "raw_bad_header"

    def __init__(self, field: str, reason: str, **facts: Any) -> None:
        super().__init__(f"header {field}: {reason}", field=field, **facts)
        self.field = field


class PayloadError(RapidError):
    """A payload failed in a way that will repeat."""

    code = "payload_failed"


class PayloadRetryError(PayloadError):
    """A payload failed for a reason that may pass (a calib not there yet, memory short)."""

    code = "payload_failed_for_now"
    retry = Retry.LATER


class ConfigurationError(RapidError):
    """A setting, camera definition, pipeline or pattern is wrong."""

    code = "bad_configuration"

    def __init__(self, field: str, reason: str, **facts: Any) -> None:
        super().__init__(f"{field}: {reason}", field=field, **facts)
        self.field = field


class NotFoundError(RapidError):
    """Something asked for by name or id does not exist."""

    code = "not_found"

    def __init__(self, kind: str, name: object, known: str = "", *, owner: str = "") -> None:
        hint = f" (known: {known})" if known else ""
        whose = f"{owner} has no {kind}" if owner else f"no {kind} named"
        super().__init__(f"{whose} {name!s}{hint}", kind=kind, name=str(name))


class StoreError(RapidError):
    """A store or server failed to answer."""

    code = "store_failed"
    retry = Retry.LATER


class RefusedError(RapidError):
    """The caller is not, or no longer, entitled to do this."""

    code = "refused"


class LeaseLostError(RefusedError):
    """The caller's lease on a job was given to another (invariant I3)."""

    code = "lease_lost"
