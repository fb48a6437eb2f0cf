"""Records are read once they are written, and come again unless they were committed."""

import sys
from contextlib import closing

import pytest

from rapid.errors import ConfigurationError, PayloadError, StoreError
from rapid.kafka.models import KafkaConfig, Record, parse_kafka
from rapid.kafka.subscription import Subscription
from rapid.kafka.values import Decoder


def taken(subscription: Subscription, n: int) -> list[Record]:
    """Return so many records, once they have come."""
    records: list[Record] = []
    for _ in range(120):
        try:
            records += subscription.take(100, timeout_s=1.0)
        except StoreError:
            continue  # the broker has only just heard of the topic
        if len(records) >= n:
            return records
    pytest.fail(f"{len(records)} records came, not {n}")


def test_what_was_not_committed_comes_again_and_what_was_does_not(broker) -> None:
    broker.put("one", *range(5))
    config = broker.config()
    with closing(Subscription(config, ["one"], group="g1", from_the_beginning=True)) as first:
        records = taken(first, 5)
        assert [record.value for record in records] == [b"0", b"1", b"2", b"3", b"4"]
        first.put_back(records[3:])
        assert [record.value for record in taken(first, 2)] == [b"3", b"4"]
        first.commit(records[:3])
    with closing(Subscription(config, ["one"], group="g1", from_the_beginning=True)) as second:
        assert [record.value for record in taken(second, 2)] == [b"3", b"4"]


def test_a_broker_that_is_not_there_is_told_of() -> None:
    config = KafkaConfig(servers="127.0.0.1:1", options={"socket.connection.setup.timeout.ms": 1000})
    with closing(Subscription(config, ["one"], group="g", from_the_beginning=True)) as subscription:

        def until_told() -> None:
            for _ in range(120):
                subscription.take(1, timeout_s=1.0)

        with pytest.raises(StoreError, match="kafka: "):
            until_told()


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"topics": ["x"]}, "kafka.servers"),
        ({"servers": ""}, "kafka.servers"),
        ({"servers": "h:1", "topics": ["x"]}, "kafka.topics"),
        ({"servers": "h:1", "visits": "x"}, "kafka.visits"),
        ({"servers": "h:1", "options": {"enable.auto.commit": True}}, "kafka.options"),
    ],
    ids=["no server", "an empty one", "an unknown name", "no list", "an option that loses records"],
)
def test_a_setting_that_is_not_valid_is_refused_by_its_name(setting, field) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_kafka(setting)
    assert caught.value.facts["field"] == field


def test_an_option_that_librdkafka_does_not_know_is_refused() -> None:
    config = KafkaConfig(servers="127.0.0.1:1", options={"sasl.user": "me"})
    with pytest.raises(ConfigurationError, match=r"sasl\.user"):
        Subscription(config, ["one"], group="g", from_the_beginning=True)


def test_without_the_library_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r"rapid-analysis\[kafka\]"):
        Subscription(KafkaConfig(servers="h:1"), ["one"], group="g", from_the_beginning=True)


@pytest.mark.parametrize("value", [b"", b"{", b"\x00\x00\x00\x00\x01x", b"\xff\xfe"])
def test_a_value_that_is_no_document_is_bad(value) -> None:
    with pytest.raises(PayloadError):
        Decoder().decode(value)
