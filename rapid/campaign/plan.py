"""Choose the exposures of a campaign, from what is stored of its nights and what raws there are.

Reads stores; what a selection leaves is decided in `is_chosen`, which is pure.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rapid.arrival.listing import ExposureRaws
from rapid.arrival.models import RawHeader
from rapid.errors import NotFoundError, RapidError, RawError
from rapid.exclusions.rules import Rule, RuleError, parse_rule
from rapid.requests.campaigns import CampaignSelection
from rapid.requests.faults import BadRequestError
from rapid.results.models import ExposureSummary, Scalar
from rapid.results.store import ResultsStore

MAX_EXPOSURES = 20_000
"""Two weeks of nights: of more, nobody could say how it stands."""


class Listing(Protocol):
    """Where raws are looked up by night."""

    def night(self, day_obs: int) -> dict[int, ExposureRaws]:
        """Return the raws of a night, by exposure id."""
        ...

    def read_header(self, uri: str) -> RawHeader:
        """Return who a raw is."""
        ...


@dataclass
class Candidate:
    """One exposure of a campaign.

    Attributes
    ----------
    info
        Its facts, as summaries carry them; empty if nothing of it was ever gathered.
    raws
        What there is to process.
    gone
        Detectors that have a result, and no raw any more.
    finished
        Detectors with a result in the run that holes are looked for in.
    """

    exposure_id: int
    day_obs: int
    image_type: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Scalar] = field(default_factory=dict)
    raws: ExposureRaws = field(default_factory=ExposureRaws)
    gone: frozenset[int] = frozenset()
    finished: frozenset[int] = frozenset()

    @property
    def facts(self) -> dict[str, Scalar]:
        """What an expression is about."""
        told = {name: value for name, value in self.info.items() if isinstance(value, float | int | str | bool | None)}
        about = {"exposure": self.exposure_id, "day_obs": self.day_obs, "seq_num": self.exposure_id % 100_000}
        return {**told, **self.metrics, **about, "image_type": self.image_type}


def nights_of(select: CampaignSelection, known: frozenset[int]) -> tuple[int, ...]:
    """Return the nights of a selection: those named one by one, and those of its ranges that are known."""
    named = {one.first for one in select.nights if one.first == one.last}
    return tuple(sorted(named | {day for day in known if any(one.holds(day) for one in select.nights)}))


def is_chosen(candidate: Candidate, select: CampaignSelection, rule: Rule | None) -> bool:
    """Whether a selection leaves an exposure."""
    exposure_id = candidate.exposure_id
    if select.exposures and not any(one.holds(exposure_id) for one in select.exposures):
        return False
    if any(one.holds(exposure_id) for one in select.exclude):
        return False
    if select.image_types and candidate.image_type not in {kind.value for kind in select.image_types}:
        return False
    return rule is None or rule.meets(candidate.facts)


def read_rule(select: CampaignSelection) -> Rule | None:
    """Read the expression of a selection.

    Raises
    ------
    BadRequestError
        Raised, with the column, for what is no expression.
    """
    if not select.where.strip():
        return None
    try:
        return parse_rule(select.where, about_exposures=True)
    except RuleError as error:
        raise BadRequestError("select.campaign.where", error.message.removeprefix("rule: ")) from error


def choose_exposures(
    select: CampaignSelection, *, results: ResultsStore, camera: str, listing: Listing | None
) -> list[Candidate]:
    """Return the exposures of a campaign, newest first.

    Raises
    ------
    BadRequestError
        Raised, naming the field, for a night without data, and for a selection that leaves nothing.
    """
    rule = read_rule(select)
    nights = nights_of(select, frozenset(day for day, _ in results.nights(camera)))
    candidates: list[Candidate] = []
    for day_obs in nights:
        candidates += night_of(day_obs, results=results, camera=camera, listing=listing, run=select.of)
        if len(candidates) > MAX_EXPOSURES:
            raise BadRequestError(
                "select.campaign.nights", f"have more than {MAX_EXPOSURES} exposures: make several campaigns of them"
            )
    if not candidates:
        named = ", ".join(
            str(one.first) if one.first == one.last else f"{one.first}-{one.last}" for one in select.nights[:5]
        )
        raise BadRequestError("select.campaign.nights", f"there is no raw and no result of {named}")
    needs_header = rule is not None or bool(select.image_types)
    if needs_header and listing is not None:
        for candidate in candidates:
            if not candidate.image_type:
                read_facts(candidate, listing)
    if rule is not None:
        _check_names(rule, candidates)
    chosen = [candidate for candidate in candidates if is_chosen(candidate, select, rule)]
    if not chosen:
        field_name = next((n for n in ("where", "exposures", "image_types", "exclude") if getattr(select, n)), "nights")
        raise BadRequestError(
            f"select.campaign.{field_name}", f"leaves none of the {len(candidates)} exposures of these nights"
        )
    return sorted(chosen, key=lambda one: one.exposure_id, reverse=True)


def _check_names(rule: Rule, candidates: list[Candidate]) -> None:
    known = {name for candidate in candidates for name in candidate.facts}
    for name in rule.names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise BadRequestError("select.campaign.where", f"no exposure of these nights has {name[:60]}{hint}")


def night_of(day_obs: int, *, results: ResultsStore, camera: str, listing: Listing | None, run: str) -> list[Candidate]:
    """Return every exposure of a night that has a raw or a summary."""
    found: dict[int, Candidate] = {}
    summaries = results.summaries(camera, day_obs=day_obs, limit=100_000, run=None)
    for summary in summaries:
        candidate = found.setdefault(summary.exposure, Candidate(summary.exposure, day_obs))
        candidate.image_type = candidate.image_type or summary.image_type
        candidate.info = candidate.info or dict(summary.info)
        if summary.run == run:
            candidate.metrics = {**candidate.metrics, **summary.metrics}
            candidate.finished |= _finished(summary)
    if listing is None:
        for candidate in found.values():
            candidate.raws = _raws_of_results(results, camera, candidate.exposure_id)
        return list(found.values())
    raws = listing.night(day_obs)
    for exposure_id, there in raws.items():
        found.setdefault(exposure_id, Candidate(exposure_id, day_obs)).raws = there
    for candidate in found.values():
        there = candidate.raws
        candidate.gone = frozenset(candidate.finished - there.raws.keys() - there.guiders.keys())
    return list(found.values())


def _finished(summary: ExposureSummary) -> frozenset[int]:
    return frozenset(d for d, status in summary.detectors.items() if status.state.value == "finished")


def _raws_of_results(results: ResultsStore, camera: str, exposure_id: int) -> ExposureRaws:
    raws = ExposureRaws()
    for result in results.results(exposure_id, camera=camera):
        place = raws.guiders if result.pipeline == "guider" else raws.raws
        place.setdefault(result.detector, result.provenance.raw)
    return raws


def read_facts(candidate: Candidate, listing: Listing) -> Mapping[str, Any] | None:
    """Read what an exposure is from one of its raws, where nothing of it is stored; return that raw's header.

    The first raw that can be read counts; None if none can.
    """
    for uri in [*candidate.raws.raws.values(), *candidate.raws.guiders.values()][:5]:
        try:
            raw = listing.read_header(uri)
        except (RawError, NotFoundError):
            continue
        except RapidError:
            break
        candidate.image_type = raw.info.image_type.value
        candidate.info = raw.info.model_dump(
            mode="json", exclude={"detector", "detector_name", "is_guider", "detector_serial"}
        )
        return raw.header
    return None
