"""Find what used a calib or an exposure, from the index that is filled as results are stored (`rapid.results.uses`)."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any

import sqlalchemy as sa

from rapid.provenance.decide import stages_of
from rapid.provenance.models import Affected, AffectedBatch, AffectedCalib, AffectedError
from rapid.results import schema
from rapid.results.sql import SqlStore

CHUNK = 500
"""Values per statement: SQLite of some builds takes 999."""

MAX_CALIBS = 5000
"""Calibs of one question: one of every detector for 25 nights."""


class ProvenanceStore(SqlStore):
    """The index of uses.

    Parameters
    ----------
    engine
        That of a results store: ``ProvenanceStore(results.engine)``.
    """

    def matching_calibs(self, camera: str, pattern: str) -> list[str]:
        """Return the calibs of a camera that an id means, in which ``*`` stands for anything.

        Raises
        ------
        AffectedError
            Raised if there are none, or more than can be asked for at once.
        """
        n = schema.calib_name.c.calib_id
        if "*" not in pattern:
            condition: Any = n == pattern
        else:
            text = pattern.replace("!", "!!").replace("%", "!%").replace("_", "!_").replace("*", "%")
            condition = n.like(text, escape="!")
        own = sa.select(schema.calib.c.calib_id).where(
            schema.calib.c.calib_id == n, schema.calib.c.camera != camera
        )  # another camera's
        rows = self._fetch(sa.select(n).where(condition, ~own.exists()).order_by(n).limit(MAX_CALIBS + 1))
        # SQLite's LIKE takes small letters for large ones.
        found = [row.calib_id for row in rows if "*" not in pattern or _fits(row.calib_id, pattern)]
        if not found:
            raise AffectedError("calib", f"{camera} has no calib {pattern[:200]!r}, and no result used one")
        if len(found) > MAX_CALIBS:
            raise AffectedError("calib", f"{pattern[:200]!r} means more than {MAX_CALIBS} calibs")
        return found

    def affected(
        self,
        camera: str,
        *,
        calib: str | None = None,
        exposure: int | None = None,
        detectors: Collection[int] | None = None,
    ) -> Affected:
        """Return all that a calib, or an exposure, has touched: what used it, and what used what was built with it.

        Parameters
        ----------
        calib
            A calib id; ``*`` stands for anything: ``LSSTCam-*-flat-r_57-20261120T200100-v1`` is the flat of every detector.
        exposure
            An exposure that calibs were built from.
        detectors
            Of the exposure, only these; every one if left out.

        Raises
        ------
        AffectedError
            Raised if neither or both are given, or for a calib that nothing knows.
        StoreError
            Raised if the database does not answer.
        """
        if (calib is None) == (exposure is None):
            raise AffectedError("calib", "give a calib or an exposure")
        names: dict[int, str] = {}
        sources: dict[int, tuple[str, ...]] = {}
        builds: set[int] = set()
        if calib is not None:
            ids = self.matching_calibs(camera, calib)
            names = self._names(schema.calib_name.c.calib_id, ids)
            roots = set(names)
        else:
            i = schema.calib_input.c
            n, c = schema.calib_name.c, schema.calib.c
            joined = schema.calib_input.join(schema.calib_name, n.id == i.calib).join(
                schema.calib, c.calib_id == n.calib_id
            )
            of_exposure = self._fetch(
                sa.select(i.calib, c.detector).select_from(joined).where(i.exposure == exposure, c.camera == camera)
            )
            direct = {row.calib for row in of_exposure if detectors is None or row.detector in detectors}
            sources = {number: (str(exposure),) for number in direct}
            u, r = schema.result_input.c, schema.detector_result.c
            users = self._fetch(
                sa.select(u.result, r.detector)
                .select_from(schema.result_input.join(schema.detector_result, u.result == r.id))
                .where(u.exposure == exposure, r.camera == camera)
            )
            builds = {row.result for row in users if detectors is None or row.detector in detectors}
            roots = direct
            if not roots and not builds:
                self._check_exposure(camera, exposure)
        children = self._descendants(roots)
        stages = stages_of(roots, children)
        if exposure is not None:
            stages = {number: stage + 1 for number, stage in stages.items()}  # the exposure itself is stage 0
        names |= self._names(schema.calib_name.c.id, set(stages) - set(names))
        parents: dict[int, list[str]] = defaultdict(list)
        for parent, made in children.items():
            for child in made:
                parents[child].append(names[parent])
        states = self._states(camera, [names[number] for number in stages])
        built = [
            AffectedCalib(
                calib_id=names[number],
                stage=stage,
                because_of=(*sources.get(number, ()), *sorted(parents[number])),
                state=states.get(names[number], ""),
            )
            for number, stage in stages.items()
            if stage > 0
        ]
        return Affected(
            camera=camera,
            calibs=tuple(sorted(names[number] for number in roots)) if calib is not None else (),
            exposures=(exposure,) if exposure is not None else (),
            built=tuple(sorted(built, key=lambda one: (one.stage, one.calib_id))),
            batches=tuple(self._batches(camera, stages, builds)),
        )

    def _check_exposure(self, camera: str, exposure: int | None) -> None:
        """Raise `AffectedError` for an exposure of which there is nothing: a mistyped one has touched nothing, too."""
        r = schema.detector_result.c
        if not self._fetch(sa.select(r.id).where(r.camera == camera, r.exposure == exposure).limit(1)):
            raise AffectedError("exposure", f"{camera} has no results of exposure {exposure}")

    def _descendants(self, roots: Iterable[int]) -> dict[int, list[int]]:
        """Return, by calib, those built with it, for all that can be reached."""
        children: dict[int, list[int]] = defaultdict(list)
        seen, frontier = set(roots), sorted(roots)
        t = schema.calib_parent.c
        while frontier:
            found = self._fetch_in(sa.select(t.parent, t.child), t.parent, frontier)
            new = set()
            for row in found:
                children[row.parent].append(row.child)
                new.add(row.child)
            frontier = sorted(new - seen)
            seen |= new
        return children

    def _batches(self, camera: str, stages: dict[int, int], builds: set[int]) -> list[AffectedBatch]:
        u, r = schema.result_calib.c, schema.detector_result.c
        columns = (r.id, r.camera, r.run, r.exposure, r.day_obs, r.pipeline, r.image_type, r.detector)
        joined = schema.result_calib.join(schema.detector_result, u.result == r.id)
        # The camera is looked at here: asked for it, SQLite begins with all of a camera's results.
        by_calib = self._fetch_in(sa.select(u.calib, *columns).select_from(joined), u.calib, stages)
        by_input = self._fetch_in(sa.select(sa.literal(0).label("calib"), *columns), r.id, builds)
        found: dict[int, tuple[Any, int]] = {}
        for row in chain(by_calib, by_input):
            if row.camera != camera:
                continue
            stage = stages.get(row.calib, 0)
            found[row.id] = (row, max(stage, found[row.id][1] if row.id in found else 0))
        grouped: dict[tuple[str, int, str], list[tuple[Any, int]]] = defaultdict(list)
        for row, stage in found.values():
            grouped[row.run, row.exposure, row.pipeline].append((row, stage))
        last = max((stage for _, stage in found.values()), default=0) + 1
        batches = []
        for (run, exposure, pipeline), members in grouped.items():
            stage = max(stage for _, stage in members) if pipeline.startswith("build_") else last
            batches.append(
                AffectedBatch(
                    run=run,
                    exposure=exposure,
                    day_obs=members[0][0].day_obs,
                    pipeline=pipeline,
                    image_type=members[0][0].image_type,
                    detectors=tuple(sorted(row.detector for row, _ in members)),
                    stage=stage,
                )
            )
        return sorted(batches, key=lambda one: (one.stage, -one.exposure, one.run, one.pipeline))

    def _names(self, column: Any, values: Iterable[Any]) -> dict[int, str]:
        t = schema.calib_name.c
        return {row.id: row.calib_id for row in self._fetch_in(sa.select(t.id, t.calib_id), column, values)}

    def _states(self, camera: str, calib_ids: Iterable[str]) -> dict[str, str]:
        t = schema.calib.c
        statement = sa.select(t.calib_id, t.state).where(t.camera == camera)
        return {row.calib_id: row.state for row in self._fetch_in(statement, t.calib_id, calib_ids)}

    def _fetch_in(self, statement: sa.Select[Any], column: Any, values: Iterable[Any]) -> Iterator[Any]:
        """Fetch in pieces the rows whose column has one of some values."""
        wanted = sorted(values)
        for start in range(0, len(wanted), CHUNK):
            yield from self._fetch(statement.where(column.in_(wanted[start : start + CHUNK])))


def _fits(calib_id: str, pattern: str) -> bool:
    """Whether a text is as a pattern says, in which ``*`` stands for anything and nothing else is special."""
    first, *rest = pattern.split("*")
    if not calib_id.startswith(first):
        return False
    place = len(first)
    for part in rest[:-1]:
        at = calib_id.find(part, place)
        if at < 0:
            return False
        place = at + len(part)
    return len(calib_id) - place >= len(rest[-1]) and calib_id.endswith(rest[-1])
