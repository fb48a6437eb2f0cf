"""Read topics, and say how far: a thin layer over confluent-kafka, which blocks, and so is called from a thread."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from rapid.errors import ConfigurationError, StoreError
from rapid.kafka.models import KafkaConfig, Record

log = structlog.get_logger()

EXTRA = "pip install 'rapid-analysis[kafka]'"


def confluent_kafka() -> Any:
    """Return the package ``confluent_kafka``.

    Raises
    ------
    ConfigurationError
        Raised, saying what to install, if it is not there.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise ConfigurationError("kafka", f"needs the package confluent-kafka ({EXTRA}): {error}") from error
    return confluent_kafka


class Subscription:
    """One member of a consumer group. Its calls come from one thread.

    Parameters
    ----------
    group
        The consumer group: its members share the partitions, and each record goes to one of them.
    from_the_beginning
        Where a group that is new begins: with all that the broker has kept, or with what comes from now on.

    Raises
    ------
    ConfigurationError
        Raised if confluent-kafka is not installed, or refuses an option.
    """

    def __init__(self, config: KafkaConfig, topics: Sequence[str], *, group: str, from_the_beginning: bool) -> None:
        self._lib = confluent_kafka()
        self._trouble: str | None = None
        self._lock = threading.Lock()
        facts = {
            **config.options,
            "bootstrap.servers": config.servers,
            "group.id": group,
            # An offset is committed when a record is safe with whoever takes it (invariant I1).
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest" if from_the_beginning else "latest",
            "error_cb": self._note,
        }
        try:
            self._consumer = self._lib.Consumer(facts, logger=_Quiet())
            self._consumer.subscribe(list(topics))
        except (self._lib.KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError("kafka.options", _reason(error)) from None

    def _note(self, error: Any) -> None:
        """Hear of trouble; librdkafka goes on trying by itself."""
        with self._lock:
            self._trouble = error.str()

    def take(self, limit: int, *, timeout_s: float) -> list[Record]:
        """Return records as they come; none after the timeout.

        Raises
        ------
        StoreError
            Raised if the broker does not answer, or a topic is not there; it goes on by itself when that has passed.
        """
        records = []
        trouble = None
        for message in self._consumer.consume(limit, timeout=timeout_s):
            error = message.error()
            if error is None:
                records.append(Record(message.topic(), message.partition(), message.offset(), message.value()))
            else:
                trouble = error.str()
        if records:
            with self._lock:
                self._trouble = None
            return records
        with self._lock:
            trouble, self._trouble = trouble or self._trouble, None
        if trouble is not None:
            raise StoreError(f"kafka: {trouble}")
        return []

    def commit(self, records: Iterable[Record]) -> None:
        """Say that records are dealt with, and all before them.

        Raises
        ------
        StoreError
            Raised if the broker does not take that: they come again.
        """
        offsets = [
            self._lib.TopicPartition(topic, partition, offset + 1)
            for (topic, partition), offset in _last(records).items()
        ]
        try:
            answers = self._consumer.commit(offsets=offsets, asynchronous=False)
        except self._lib.KafkaException as error:
            raise StoreError(f"kafka: {_reason(error)}") from None
        refused = [one.error for one in answers or () if one.error is not None]
        if refused:
            raise StoreError(f"kafka: {refused[0].str()}")

    def put_back(self, records: Iterable[Record]) -> None:
        """Have records come again, and all after them."""
        firsts: dict[tuple[str, int], int] = {}
        for record in records:
            place = (record.topic, record.partition)
            firsts[place] = min(record.offset, firsts.get(place, record.offset))
        for (topic, partition), offset in firsts.items():
            try:
                self._consumer.seek(self._lib.TopicPartition(topic, partition, offset))
            except self._lib.KafkaException as error:
                # It is another member's now, which begins where was committed.
                log.info("partition is no longer ours", topic=topic, partition=partition, error=_reason(error))

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


class _Quiet:
    """Swallows librdkafka's own lines: what matters comes by its errors, in ours."""

    def log(self, *_: Any, **__: Any) -> None:
        """Log nothing."""


def _last(records: Iterable[Record]) -> dict[tuple[str, int], int]:
    lasts: dict[tuple[str, int], int] = {}
    for record in records:
        place = (record.topic, record.partition)
        lasts[place] = max(record.offset, lasts.get(place, record.offset))
    return lasts


def _reason(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return str(first.str() if hasattr(first, "str") else first)
