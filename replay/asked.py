"""Which request of one night is which of another, and under which runs their results are.

A request's id, and the run that is named after it, are another one every time: what was asked for, and how often before,
tells which request it is.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from rapid.errors import ConfigurationError
from rapid.requests.models import PROMPT, RequestRecord, RequestSpec, RequestState
from replay.events import NightEvent, RequestEvent

SETTINGS = {"pipeline", "config", "combine", "priority", "run", "label"}
"""Of a request: how it processes exposures."""

WHICH_DETECTORS = {"detectors", "guaranteed"}


class AskedTwice(NamedTuple):
    """A request of the expected night, and the same of the other; None if it was not made there."""

    then: RequestEvent
    now: RequestEvent | None


def pair_requests(expected: Iterable[NightEvent], found: Iterable[NightEvent]) -> list[AskedTwice]:
    """Return the requests of a night with those of another."""
    there = dict(_known_again(found))
    return [AskedTwice(event, there.get(key)) for key, event in _known_again(expected)]


def _known_again(events: Iterable[NightEvent]) -> Iterator[tuple[tuple[str, int], RequestEvent]]:
    seen: dict[str, int] = {}
    for event in events:
        if isinstance(event, RequestEvent):
            what = _asked(event.spec)
            seen[what] = seen.get(what, 0) + 1
            yield (what, seen[what]), event


def _asked(spec: Mapping[str, Any]) -> str:
    """Return what was asked for in one spelling: 3000 seconds are 3000.0."""
    try:
        known = RequestSpec.model_validate_json(json.dumps(spec)).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        known = dict(spec)  # of a release that knew other requests
    return json.dumps(known, sort_keys=True)


def asked_again(record: RequestRecord, exposure: int, detector: str, *, at_s: float) -> RequestEvent:
    """Return a request for one of its exposures, when that is there: for what was combined all of them.

    Parameters
    ----------
    detector
        Name of the one to process; empty for those of the request.
    at_s
        When all raws have come.

    Raises
    ------
    ConfigurationError
        Raised for one whose results took the place of others: they are the other's.
    """
    spec = record.spec
    if spec is None or spec.select.affected is not None or spec.select.calibs is not None:
        raise ConfigurationError("incident", f"request {record.request_id} processed nothing under a run of its own")
    exposures = record.members if spec.combine is not None else (exposure,)
    facts = spec.model_dump(mode="json", include=SETTINGS)
    # Whatever a request may do without, this one is to be processed.
    facts |= {"select": {"exposures": list(exposures)}, "reuse": False}
    facts |= {"detectors": [detector]} if detector else spec.model_dump(mode="json", include=WHICH_DETECTORS)
    narrowed = RequestSpec.model_validate_json(json.dumps(facts))
    return RequestEvent(
        at_s=at_s,
        request_id=record.request_id,
        spec=narrowed.model_dump(mode="json", exclude_defaults=True),
        by=record.asked_by,
        door=record.source,
        run=record.run,
    )


class Runs(NamedTuple):
    """By run, then and now, the name under which its results are compared."""

    then: dict[str, str]
    now: dict[str, str]


def comparable_runs(pairs: Iterable[AskedTwice]) -> Runs:
    """Return the night's own run, and those of requests that came to their end both times.

    How far one that was cancelled, or ran out of time, had come by then is another matter each time.
    """
    runs = Runs({PROMPT: PROMPT}, {PROMPT: PROMPT})
    for then, now in pairs:
        if now is None or not (then.ended == now.ended == RequestState.DONE.value) or not (then.run and now.run):
            continue
        name = then.run if then.run == now.run else f"request {then.request_id}"
        runs.then.setdefault(then.run, name)
        runs.now.setdefault(now.run, name)
    return runs
