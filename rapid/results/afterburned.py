"""Which summaries lack an afterburner's numbers. The database compares: a campaign has thousands of large documents."""

from collections.abc import Collection

import sqlalchemy as sa

from rapid.results import schema
from rapid.results.sql import SqlStore


class AfterburnedRows(SqlStore):
    """Summaries, as far as afterburners are concerned."""

    def lacking(
        self, camera: str, *, run: str, nights: Collection[int], pipelines: Collection[str]
    ) -> list[tuple[int, str]]:
        """Return exposure and pipeline of a run's summaries with finished detectors that no afterburner has added to.

        Newest exposure first.

        Raises
        ------
        StoreError
            Raised if the database does not answer.
        """
        t = schema.exposure_summary.c
        n_added = sa.func.coalesce(t.document["n_afterburned"].as_integer(), 0)
        found: list[tuple[int, str]] = []
        for day_obs in sorted(nights, reverse=True):
            statement = (
                sa.select(t.exposure, t.pipeline)
                .where(t.camera == camera, t.day_obs == day_obs, t.newest, t.run == run)
                .where(t.pipeline.in_(list(pipelines)), n_added < t.document["n_finished"].as_integer())
                .order_by(t.exposure.desc(), t.pipeline)
            )
            found += [(int(row.exposure), str(row.pipeline)) for row in self._fetch(statement)]
        return found
