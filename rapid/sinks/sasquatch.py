"""Sasquatch: Kafka by its REST proxy, Avro as JSON.

What the proxy and those who read the topics need, and what goes wrong if it is not heeded:

* A topic has one schema. Fields must not come and go with what was measured: every field ever sent to a topic stays in its
  schema, and a record that lacks it has null there.
* A value that may be null is a union, and a union's value says its type: ``{"double": 1.5}``. A null is null, never 0.0.
* Numbers are doubles: a 32-bit float cannot hold an MJD, nor a 32-bit int an exposure id. Ids are strings.
* NaN and infinities are not JSON. They are None here already.
* An answer of 200 may hold errors of single records.

The types of a topic's fields are kept in a file, so that they stay the same after a restart. A metric that changes from a
number to a word is refused by name, not sent under another type.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from rapid.results.models import Scalar
from rapid.sinks.http_call import Answer, Caller
from rapid.sinks.models import MetricDocument, Sent

CONTENT_TYPE = "application/vnd.kafka.avro.v2+json"
RETRIABLE_ERROR = 2
"""The proxy's error code of a record that may be taken later; 1 is for one that never will."""

MAX_FIELDS = 3000

_FIRST = re.compile(r"^[^A-Za-z_]")
_OTHERS = re.compile(r"[^A-Za-z0-9_]")

STRINGS = ("camera", "run", "exposure", "pipeline", "image_type", "physical_filter", "detector", "detector_name", "amp")
"""What a record is of: always there, always text."""


class SasquatchConfig(BaseModel):
    """Where the REST proxy is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://", description="https://host/sasquatch-rest-proxy")
    namespace: str = Field(default="lsst.rapid", pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
    token: SecretStr | None = None


class TopicFields:
    """The fields of every topic and their types, kept in a file.

    Parameters
    ----------
    path
        The file; written whole, so that a crash leaves the old one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._types: dict[str, dict[str, str]] = known if isinstance(known, dict) else {}

    def of(self, topic: str) -> Mapping[str, str]:
        """Return the types of a topic's fields, in the order in which they came."""
        return self._types.get(topic, {})

    def add(self, topic: str, fields: Mapping[str, str]) -> None:
        """Take in fields that are new."""
        known = self._types.setdefault(topic, {})
        new = {name: kind for name, kind in fields.items() if name not in known}
        if not new:
            return
        known.update(new)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(self._types, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def _kind(value: Scalar) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "double"


def avro_name(name: str) -> str:
    """Return a name as Avro allows it."""
    return _FIRST.sub(lambda found: f"_{found.group()}", _OTHERS.sub("_", name))


def schema_of(topic: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the Avro schema of a topic."""
    namespace, _, name = topic.rpartition(".")
    return {
        "type": "record",
        "namespace": namespace,
        "name": name,
        "fields": [
            {"name": "timestamp", "type": "double"},
            *({"name": one, "type": "string", "default": ""} for one in STRINGS),
            {"name": "day_obs", "type": "long"},
            {"name": "seq_num", "type": "long"},
            *({"name": one, "type": ["null", kind], "default": None} for one, kind in fields.items()),
        ],
    }


def record_of(document: MetricDocument, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return a document as a record with every field of its topic.

    Raises
    ------
    ValueError
        Raised, naming the field, for a value of another type than the topic has.
    """
    values = _values_of(document)
    record: dict[str, Any] = {
        "timestamp": document.time.timestamp(),
        "camera": document.camera,
        "run": document.run,
        "exposure": str(document.exposure),
        "pipeline": document.pipeline,
        "image_type": document.image_type,
        "physical_filter": document.physical_filter,
        "detector": "" if document.detector is None else str(document.detector),
        "detector_name": document.detector_name,
        "amp": document.amp,
        "day_obs": document.day_obs,
        "seq_num": document.seq_num,
    }
    for name, kind in fields.items():
        value = values.get(name)
        if value is None:
            record[name] = None
            continue
        if _kind(value) != kind:
            raise ValueError(f"{name} is a {_kind(value)}, and the topic has it as {kind}")
        record[name] = {kind: float(value) if kind == "double" else value}
    return record


def _values_of(document: MetricDocument) -> dict[str, Scalar]:
    taken = {"timestamp", "day_obs", "seq_num", *STRINGS}
    values: dict[str, Scalar] = {}
    for name, value in document.values.items():
        plain = avro_name(name)
        values[f"{plain}_value" if plain in taken else plain] = value
    values |= {f"{avro_name(name)}_reason": why for name, why in document.reasons.items()}
    return values | {avro_name(name): text for name, text in document.provenance.items()}


class SasquatchSink:
    """Sends to one REST proxy.

    Parameters
    ----------
    folder
        Where the types of the topics' fields are kept.
    """

    name = "sasquatch"

    def __init__(self, config: SasquatchConfig, folder: Path, *, caller: Caller | None = None) -> None:
        self._config = config
        self._caller = caller or Caller()
        self._fields = TopicFields(folder / "sasquatch_fields.json")
        self._headers = {"Content-Type": CONTENT_TYPE, "Accept": "application/vnd.kafka.v2+json"}
        if config.token is not None:
            self._headers["Authorization"] = f"Bearer {config.token.get_secret_value()}"

    def send(self, documents: Sequence[MetricDocument]) -> Sent:
        """Send documents, those of a topic at once."""
        topics: dict[str, list[int]] = defaultdict(list)
        for place, document in enumerate(documents):
            topics[f"{self._config.namespace}.{avro_name(document.pipeline)}_{document.level}"].append(place)
        rejected: dict[int, str] = {}
        retry: list[int] = []
        wait_s: float | None = None
        why = ""
        for topic, places in topics.items():
            sent = self._send_topic(topic, documents, places)
            rejected |= sent.rejected
            retry += sent.retry
            wait_s, why = wait_s or sent.wait_s, why or sent.why
        return Sent(rejected, tuple(retry), wait_s, why)

    def _send_topic(self, topic: str, documents: Sequence[MetricDocument], places: list[int]) -> Sent:
        rejected: dict[int, str] = {}
        records: dict[int, dict[str, Any]] = {}
        for place in places:
            kinds = {name: kind for name, value in _values_of(documents[place]).items() if (kind := _kind(value))}
            known = self._fields.of(topic)
            wrong = next((name for name, kind in kinds.items() if known.get(name, kind) != kind), None)
            if wrong is not None:
                rejected[place] = f"{wrong} is a {kinds[wrong]}, and {topic} has it as {known[wrong]}"
            elif len(known.keys() | kinds.keys()) > MAX_FIELDS:
                rejected[place] = f"{topic} would have more than {MAX_FIELDS} fields"
            else:
                self._fields.add(topic, kinds)
        fields = self._fields.of(topic)  # of all of them: the first record alone would decide too little
        for place in places:
            if place not in rejected:
                records[place] = record_of(documents[place], fields)
        sent = self._post(topic, fields, records)
        return Sent(rejected | sent.rejected, sent.retry, sent.wait_s, sent.why)

    def _post(self, topic: str, fields: Mapping[str, str], records: dict[int, dict[str, Any]]) -> Sent:
        if not records:
            return Sent()
        body = {
            "value_schema": json.dumps(schema_of(topic, fields)),
            "records": [{"value": record} for record in records.values()],
        }
        url = f"{self._config.url.rstrip('/')}/topics/{topic}"
        answer = self._caller.post(url, json.dumps(body, allow_nan=False).encode(), self._headers)
        places = list(records)
        if answer.is_ok:
            return _read_offsets(answer, places)
        if answer.is_for_later:
            return Sent(retry=tuple(places), wait_s=answer.wait_s, why=answer.why)
        if len(places) == 1:
            return Sent(rejected={places[0]: answer.why})
        # Halves find the record that is refused; none of a refused body was taken.
        half = len(places) // 2
        first = self._post(topic, fields, {place: records[place] for place in places[:half]})
        second = self._post(topic, fields, {place: records[place] for place in places[half:]})
        return Sent(
            first.rejected | second.rejected,
            first.retry + second.retry,
            first.wait_s or second.wait_s,
            first.why or second.why,
        )


def _read_offsets(answer: Answer, places: list[int]) -> Sent:
    """Return what became of each record of a body that was taken."""
    document = answer.json()
    offsets = document.get("offsets") if isinstance(document, dict) else None
    if not isinstance(offsets, list) or len(offsets) != len(places):
        return Sent()
    rejected: dict[int, str] = {}
    retry: list[int] = []
    for place, offset in zip(places, offsets, strict=True):
        code = offset.get("error_code") if isinstance(offset, dict) else None
        if code is None:
            continue
        if code == RETRIABLE_ERROR:
            retry.append(place)
        else:
            rejected[place] = f"{code}: {offset.get('error') or 'no reason given'}"[:300]
    return Sent(rejected, tuple(retry), why="the proxy could not take some records" if retry else "")
