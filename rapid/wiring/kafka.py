"""Build what reads topics beside a role; nothing is imported of Kafka unless it is asked for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rapid.kafka.models import parse_kafka
from rapid.wiring.settings import RoleSettings

if TYPE_CHECKING:
    from rapid.camera.models import Camera
    from rapid.ingest.door import IngestDoor
    from rapid.kafka.relay import Relay
    from rapid.next_visit.desk import VisitDesk


def notification_topics(settings: RoleSettings, camera: "Camera", door: "IngestDoor") -> "Relay | None":
    """Return what hands bucket notifications to the ingest role; None if no topic has them.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, for a setting that is not valid, or if the library is not installed.
    """
    config = parse_kafka(settings.kafka)
    if config is None or not config.notifications:
        return None
    from rapid.ingest.topics import NotificationTopics
    from rapid.kafka.relay import Relay
    from rapid.kafka.subscription import Subscription, confluent_kafka

    confluent_kafka()
    group = f"{config.group}.{camera.name}.ingest"
    # A new group takes what the broker has kept: what is in the repository already is success.
    return Relay(
        lambda: Subscription(config, config.notifications, group=group, from_the_beginning=True),
        NotificationTopics(door).take,
        role="ingest",
    )


def visit_topics(settings: RoleSettings, desk: "VisitDesk") -> "Relay | None":
    """Return what hands announced visits to the board; None if no topic has them; raises as `notification_topics`."""
    config = parse_kafka(settings.kafka)
    if config is None or not (config.visits or config.canceled):
        return None
    from rapid.kafka.relay import Relay
    from rapid.kafka.subscription import Subscription, confluent_kafka
    from rapid.next_visit.topics import VisitTopics

    confluent_kafka()
    group = f"{config.group}.{desk.camera}.visits"
    return Relay(
        lambda: Subscription(config, (*config.visits, *config.canceled), group=group, from_the_beginning=False),
        VisitTopics(desk, config).take,
        role="head",
    )


async def run_beside(relay: "Relay | None", run: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Run a role, and a relay beside it; an error of either ends both.

    Parameters
    ----------
    run
        Ends when ``stop`` is set.
    """
    if relay is None:
        await run()
        return
    relaying = asyncio.create_task(relay.run(stop))
    relaying.add_done_callback(lambda _: stop.set())  # it ends by itself only with an error
    try:
        await run()
    finally:
        stop.set()
        await asyncio.gather(relaying, return_exceptions=True)
    relaying.result()
