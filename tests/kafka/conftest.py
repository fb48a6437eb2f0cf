"""A broker that speaks Kafka's protocol over TCP: the mock cluster that librdkafka brings along."""

import json
from typing import Any

import pytest
from confluent_kafka import Producer

from rapid.kafka.models import KafkaConfig

QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


class Broker:
    """One broker; it ends with the object. Topics are made when they are written to."""

    def __init__(self) -> None:
        self._holder = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
        [facts] = self._holder.list_topics(timeout=30).brokers.values()
        self.servers = f"{facts.host}:{facts.port}"

    def put(self, topic: str, *values: Any, partition: int = 0) -> None:
        """Write records; what is no bytes is written as JSON."""
        producer = Producer({"bootstrap.servers": self.servers, "log_level": 0})
        for value in values:
            data = value if isinstance(value, bytes | None) else json.dumps(value).encode()
            producer.produce(topic, data, partition=partition)
        assert producer.flush(60) == 0

    def config(self, **facts: Any) -> KafkaConfig:
        return KafkaConfig(servers=self.servers, options=QUICK, **facts)


@pytest.fixture(scope="module")
def broker() -> Broker:
    return Broker()
