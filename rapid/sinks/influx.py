"""InfluxDB by line protocol, version 1 or 2.

A point is known by measurement, tags and time; sending it again writes the same point. Numbers are always floats, as the
first point decides a field's type for good and a metric that happened to be whole then would be refused ever after; ids
are integers, words are strings. What is None is left out, with its reason as field ``NAME_reason``.
"""

from collections.abc import Sequence
from urllib.parse import urlencode

import urllib3
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from rapid.results.models import Scalar
from rapid.sinks.http_call import Answer, Caller
from rapid.sinks.models import MetricDocument, Sent

MAX_TEXT = 1000
MAX_ORIGIN = 16_000
"""Of provenance: the checksums of a hundred inputs of a build have 6500 characters. InfluxDB takes 64 kB."""
_ESCAPED_TAG = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_ESCAPED_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})
_ESCAPED_TEXT = str.maketrans({"\\": r"\\", '"': r"\""})


class InfluxConfig(BaseModel):
    """Where an InfluxDB is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://", description="http://host:8086")
    database: str = Field(default="", description="Version 1.")
    user: str = ""
    password: SecretStr | None = None
    org: str = Field(default="", description="Version 2.")
    bucket: str = Field(default="", description="Version 2.")
    token: SecretStr | None = Field(default=None, description="Version 2.")
    prefix: str = Field(
        default="rapid", pattern=r"^[A-Za-z0-9_.-]+$", description="First part of the measurements' names."
    )

    @model_validator(mode="after")
    def _one_version(self) -> "InfluxConfig":
        if bool(self.database) == bool(self.bucket):
            raise ValueError("give either database (version 1) or org and bucket (version 2)")
        return self


def to_line(document: MetricDocument, *, prefix: str = "rapid") -> str | None:
    """Return a document as one line of line protocol; None if it has no value at all."""
    tags = {
        "camera": document.camera,
        "run": document.run,
        "pipeline": document.pipeline,
        "image_type": document.image_type,
        "physical_filter": document.physical_filter,
        "detector": document.detector_name,
        "amp": document.amp,
    }
    fields = [f"{_key(name)}={_field(value)}" for name, value in document.values.items() if value is not None]
    fields += [f"{_key(name)}_reason={_field(why)}" for name, why in document.reasons.items()]
    if not fields:
        return None
    fields += [f"exposure={document.exposure}i", f"day_obs={document.day_obs}i", f"seq_num={document.seq_num}i"]
    if document.detector is not None:
        fields.append(f"detector_number={document.detector}i")
    fields += [f"{_key(name)}={_field(text, MAX_ORIGIN)}" for name, text in document.provenance.items() if text]
    place = "".join(f",{name}={_tag(value)}" for name, value in sorted(tags.items()) if value)
    moment_ns = int(document.time.timestamp()) * 1_000_000_000 + document.time.microsecond * 1000
    measurement = f"{prefix}_{document.level}".translate(_ESCAPED_MEASUREMENT)
    return f"{measurement}{place} {','.join(fields)} {moment_ns}"


def _tag(text: str) -> str:
    # A line ends with a line break, and a backslash at the end of a tag would escape what follows.
    return " ".join(text.split()).rstrip("\\").translate(_ESCAPED_TAG) or "none"


def _key(name: str) -> str:
    return _tag(name)


def _field(value: Scalar, longest: int = MAX_TEXT) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(float(value))
    return f'"{" ".join(str(value).split())[:longest].translate(_ESCAPED_TEXT)}"'


class InfluxSink:
    """Sends to one InfluxDB."""

    name = "influx"

    def __init__(self, config: InfluxConfig, *, caller: Caller | None = None) -> None:
        self._config = config
        self._caller = caller or Caller()
        base = config.url.rstrip("/")
        self._headers = {"Content-Type": "text/plain; charset=utf-8"}
        if config.bucket:
            query = urlencode({"org": config.org, "bucket": config.bucket, "precision": "ns"})
            self._url = f"{base}/api/v2/write?{query}"
            if config.token is not None:
                self._headers["Authorization"] = f"Token {config.token.get_secret_value()}"
        else:
            self._url = f"{base}/write?{urlencode({'db': config.database, 'precision': 'ns'})}"
            if config.user and config.password is not None:
                text = f"{config.user}:{config.password.get_secret_value()}"
                self._headers |= urllib3.make_headers(basic_auth=text)

    def send(self, documents: Sequence[MetricDocument]) -> Sent:
        """Send documents; those that InfluxDB refuses are found one by one."""
        lines = [to_line(document, prefix=self._config.prefix) for document in documents]
        places = [place for place, line in enumerate(lines) if line is not None]
        return self._send(lines, places)

    def _send(self, lines: list[str | None], places: list[int]) -> Sent:
        if not places:
            return Sent()
        body = "\n".join(line for place in places if (line := lines[place]) is not None)
        answer = self._caller.post(self._url, body.encode(), self._headers)
        if answer.is_ok:
            return Sent()
        if _is_for_later(answer):
            return Sent(retry=tuple(places), wait_s=answer.wait_s, why=answer.why)
        if len(places) == 1:
            return Sent(rejected={places[0]: answer.why})
        # It has written what it could and says of one what is wrong: halves tell which, and writing twice is writing once.
        half = len(places) // 2
        first, second = self._send(lines, places[:half]), self._send(lines, places[half:])
        return Sent(
            rejected=first.rejected | second.rejected,
            retry=first.retry + second.retry,
            wait_s=first.wait_s or second.wait_s,
            why=first.why or second.why,
        )


def _is_for_later(answer: Answer) -> bool:
    # 413: too much at once; halves will do.
    return answer.is_for_later and answer.status != 413
