"""Announcements as records of topics: the summit's own way to tell of them."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from rapid.errors import PayloadError
from rapid.kafka.models import KafkaConfig, Record, Taken
from rapid.kafka.values import Decoder
from rapid.next_visit.desk import VisitDesk
from rapid.next_visit.models import NextVisit, NextVisitCanceled, messages_of


class VisitTopics:
    """Takes announcements and cancellations; those of other instruments are left out."""

    def __init__(self, desk: VisitDesk, config: KafkaConfig) -> None:
        self._desk = desk
        self._canceled = frozenset(config.canceled)
        self._decoder = Decoder(config.schemas)

    async def take(self, record: Record) -> Taken:
        """Take a record in: it is on the board once this returns.

        Raises
        ------
        PayloadError
            Raised, naming the field, if it is no announcement.
        StoreError
            Raised if the board or the schema registry does not answer.
        """
        document = await asyncio.to_thread(self._decoder.decode, record.value or b"")
        outcome = Taken.IGNORED
        if record.topic in self._canceled:
            for canceled in _parsed(document, NextVisitCanceled):
                if await self._desk.cancel(canceled, by=record.topic):
                    outcome = Taken.TAKEN
            return outcome
        now_s = datetime.now(UTC).timestamp()
        for visit in _parsed(document, NextVisit):
            # What lay in the topic while we were away: its exposures have come, or will not.
            if visit.instrument == self._desk.camera and not visit.is_over(now_s=now_s):
                await self._desk.announce(visit, by=record.topic)
                outcome = Taken.TAKEN
        return outcome


def _parsed(document: Any, kind: type[BaseModel]) -> list[Any]:
    try:
        return [kind.model_validate(one) for one in messages_of(document)]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise PayloadError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
