"""Where a broker is, what is read from it, and one record of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from rapid.errors import ConfigurationError

VISITS = "lsst.sal.ScriptQueue.logevent_nextVisit"
CANCELED = "lsst.sal.ScriptQueue.logevent_nextVisitCanceled"

OURS = frozenset({"bootstrap.servers", "group.id", "enable.auto.commit", "auto.offset.reset", "error_cb"})
"""Options of librdkafka that are not a site's to set: when an offset is committed decides whether anything is lost."""


class KafkaConfig(BaseModel):
    """A broker and its topics: the setting ``kafka``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    servers: str = Field(min_length=1, description="host:port, comma separated.")
    notifications: tuple[str, ...] = Field(
        default=(), description="Topics of bucket notifications, read by the ingest role."
    )
    visits: tuple[str, ...] = Field(default=(), description=f"Topics of announced visits, read by heads: {VISITS}.")
    canceled: tuple[str, ...] = Field(default=(), description=f"Topics of visits taken back: {CANCELED}.")
    group: str = Field(
        default="rapid", min_length=1, description="First part of the consumer groups' names: GROUP.CAMERA.ROLE."
    )
    schemas: str = Field(default="", description="Schema registry, for values that are Avro: http://host:8081.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further options of librdkafka: security.protocol, sasl.mechanism, sasl.username, sasl.password, ...",
    )

    @field_validator("options")
    @classmethod
    def _are_the_sites(cls, options: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(OURS & options.keys()):
            raise PydanticCustomError("taken", "{name} cannot be set here", {"name": taken[0]})
        return options


def parse_kafka(setting: dict[str, Any]) -> KafkaConfig | None:
    """Return the setting ``kafka``, checked; None if there is none.

    Raises
    ------
    ConfigurationError
        Raised, naming the field.
    """
    if not setting:
        return None
    try:
        return KafkaConfig.model_validate(setting)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(".".join(map(str, ("kafka", *first["loc"]))), first["msg"]) from None


@dataclass(frozen=True)
class Record:
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    """None of a tombstone."""


class Taken(StrEnum):
    """What became of a record."""

    TAKEN = "taken"
    IGNORED = "ignored"
    """Not for us: of another camera, or a bucket that nobody named."""

    BAD = "bad"
    """Nobody can make anything of it; the next one follows."""
