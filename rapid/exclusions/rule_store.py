"""Rules in the results store, and what they find there.

A rule looks at what calibs are built from: when it is made, at all that is stored of its nights; then before each build, at
the exposures to be combined. What it finds is written down as exclusions that name the rule, so that a build of today can
be understood in a year, and a finding can be undone by itself.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import NotFoundError, StoreError
from rapid.exclusions.bad_exposures import BadExposure, BadExposureStore
from rapid.exclusions.decide import check_reason
from rapid.exclusions.models import MAX_NAME, EndedAlreadyError, ExclusionError
from rapid.exclusions.rules import Finding, Rule, parse_rule
from rapid.results import schema
from rapid.results.models import DetectorResult
from rapid.results.sql import SqlStore, naive

BUILT_FROM = ("bias", "dark", "flat")
"""Pipelines whose exposures calibs are built from."""

CHUNK = 500
_T = schema.exclusion_rule.c


class ExclusionRule(BaseModel):
    """A rule on metrics, and who made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    camera: str
    expression: str
    reason: str
    author: str
    created_at: datetime = Field(description="UTC.")
    first_day: int = Field(description="First observing day it looks at.")
    last_day: int | None = Field(default=None, description="Last observing day; open if none.")
    ended_by: str | None = None
    ended_at: datetime | None = Field(default=None, description="UTC.")
    end_reason: str | None = None


class RuleStore(SqlStore):
    """Rules of all cameras.

    Parameters
    ----------
    engine
        That of a results store: ``RuleStore(results.engine)``.
    """

    def add(
        self,
        camera: str,
        expression: str,
        *,
        reason: str,
        author: str,
        first_day: int,
        last_day: int | None = None,
        now: datetime,
    ) -> tuple[ExclusionRule, list[BadExposure]]:
        """Make a rule and exclude what it finds.

        Returns
        -------
        rule, found

        Raises
        ------
        ExclusionError
            Raised, naming the field, for an expression that cannot be read, no reason, or days in the wrong order.
        StoreError
            Raised if the database does not answer.
        """
        rule = parse_rule(expression)
        reason = check_reason(reason)
        if last_day is not None and last_day < first_day:
            raise ExclusionError("last_day", "must not be before first_day")
        row = {
            "camera": camera,
            "expression": rule.text,
            "reason": reason,
            "author": author[:MAX_NAME],
            "created_at": naive(now),
            "first_day": first_day,
            "last_day": last_day,
        }
        try:
            with self._begin() as connection:
                insert = schema.exclusion_rule.insert().values(**row).returning(_T.id)
                number = connection.execute(insert).scalar_one()
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write rule: {error}") from error
        made = self.get(camera, number)
        return made, self._write_down(made, self._search(made, rule), now=now)

    def end(
        self, camera: str, number: int, *, by: str, now: datetime, reason: str = "", undo: bool = False
    ) -> ExclusionRule:
        """End a rule: it finds nothing more. With ``undo`` what it has found is built from again.

        Raises
        ------
        NotFoundError
            Raised for a number that the camera does not have.
        EndedAlreadyError
            Raised if somebody has ended it before.
        """
        reason = check_reason(reason) if reason.strip() else ""
        try:
            with self._begin() as connection:
                done = connection.execute(
                    schema.exclusion_rule.update()
                    .where(_T.camera == camera, _T.id == number, _T.ended_at.is_(None))
                    .values(ended_by=by[:MAX_NAME], ended_at=naive(now), end_reason=reason or None)
                ).rowcount
        except SQLAlchemyError as error:
            raise StoreError(f"results store: cannot write rule: {error}") from error
        found = self.get(camera, number)
        if not done:
            raise EndedAlreadyError(f"rule {number} was ended by {found.ended_by}", rule=number)
        if undo:
            BadExposureStore(self.engine).undo_rule(camera, number, by=by, now=now, reason=reason)
        return found

    def get(self, camera: str, number: int) -> ExclusionRule:
        """Return a rule; raises `NotFoundError` if the camera has none of that number."""
        found = self._where(_T.camera == camera, _T.id == number)
        if not found:
            raise NotFoundError("exclusion rule", number, owner=camera)
        return found[0]

    def listed(self, camera: str, *, with_history: bool = False) -> list[ExclusionRule]:
        """Return the rules, newest first; with those that were ended if asked for."""
        conditions = [_T.camera == camera]
        if not with_history:
            conditions.append(_T.ended_at.is_(None))
        return self._where(*conditions)

    def preview(
        self, camera: str, expression: str, *, first_day: int, last_day: int | None = None
    ) -> list[tuple[DetectorResult, Finding]]:
        """Return what a rule would find, and change nothing."""
        rule = parse_rule(expression)
        draft = ExclusionRule(
            id=0,
            camera=camera,
            expression=rule.text,
            reason="preview",
            author="",
            created_at=datetime.now(UTC),
            first_day=first_day,
            last_day=last_day,
        )
        return self._search(draft, rule)

    def apply(self, camera: str, exposures: Sequence[int], *, now: datetime) -> list[BadExposure]:
        """Let every rule look at some exposures, and exclude what they find: before something is built from them."""
        made: list[BadExposure] = []
        for rule in self.listed(camera):
            day_obs = {exposure // 100_000 for exposure in exposures}
            if any(rule.first_day <= day and (rule.last_day is None or day <= rule.last_day) for day in day_obs):
                found = self._search(rule, parse_rule(rule.expression), exposures=exposures)
                made += self._write_down(rule, found, now=now)
        return made

    def _search(
        self, rule: ExclusionRule, read: Rule, *, exposures: Sequence[int] | None = None
    ) -> list[tuple[DetectorResult, Finding]]:
        found = []
        for result in self._results(rule, exposures):
            finding = read.find(result)
            if finding is not None:
                found.append((result, finding))
        return found

    def _results(self, rule: ExclusionRule, exposures: Sequence[int] | None) -> Iterable[DetectorResult]:
        r = schema.detector_result.c
        conditions: list[Any] = [
            r.camera == rule.camera,
            r.run == "prompt",
            r.pipeline.in_(BUILT_FROM),
            r.day_obs >= rule.first_day,
        ]
        if rule.last_day is not None:
            conditions.append(r.day_obs <= rule.last_day)
        if exposures is not None:
            conditions.append(r.exposure.in_(list(exposures)))
        last = 0
        while True:  # in pieces: a season of flats is no list
            text = sa.cast(r.document, sa.Text).label("document")
            statement = sa.select(r.id, text).where(*conditions, r.id > last).order_by(r.id).limit(CHUNK)
            rows = self._fetch(statement)
            for row in rows:
                yield DetectorResult.model_validate_json(row.document)
            if len(rows) < CHUNK:
                return
            last = rows[-1].id

    def _write_down(
        self, rule: ExclusionRule, found: Iterable[tuple[DetectorResult, Finding]], *, now: datetime
    ) -> list[BadExposure]:
        rows = [
            (result.exposure, result.detector, result.detector_name, f"{rule.reason}: {finding}")
            for result, finding in found
        ]
        return BadExposureStore(self.engine).add_found(rule.camera, rule.id, rows, author=rule.author, now=now)

    def _where(self, *conditions: Any) -> list[ExclusionRule]:
        rows = self._fetch(sa.select(schema.exclusion_rule).where(*conditions).order_by(_T.id.desc()).limit(1000))
        return [
            ExclusionRule.model_validate(
                {
                    name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
                    for name, value in row._mapping.items()
                }
            )
            for row in rows
        ]
