"""Bucket notifications as records of topics: what Ceph and MinIO send to Kafka."""

from rapid.errors import PayloadError
from rapid.ingest.door import IngestDoor
from rapid.kafka.models import Record, Taken
from rapid.kafka.values import json_of


class NotificationTopics:
    """Takes notifications as the HTTP door does."""

    def __init__(self, door: IngestDoor) -> None:
        self._door = door

    async def take(self, record: Record) -> Taken:
        """Take a record in: what it tells of is on our list in Redis, or in a bucket that is listed, once this returns.

        Raises
        ------
        PayloadError
            Raised if it is no notification.
        StoreError
            Raised if Redis does not answer.
        """
        value = record.value or b""
        json_of(value)
        receipt = await self._door.take(value)
        if receipt.n_bad or receipt.n_refused:
            reason = f"{receipt.n_bad} bad records, {receipt.n_refused} without the agreed secret"
            raise PayloadError(f"{reason}; {receipt.n_taken} taken")
        return Taken.TAKEN if receipt.n_taken else Taken.IGNORED
