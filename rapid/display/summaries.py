"""The summaries of a night: from memory where the night runs, else from the results store."""

from rapid.display.reader import Reader
from rapid.results.models import ExposureSummary


async def summaries_of_night(reader: Reader, day_obs: int) -> list[ExposureSummary]:
    """Return the newest summary of every exposure and pipeline of a night; none for an unknown night.

    Raises
    ------
    StoreError
        Raised if the results store does not answer for a night that is over.
    """
    live = reader.night
    if day_obs == live.day_obs:
        batches = (batch for track in live.tracks.values() for batch in track.batches.values())
        return [batch.summary for batch in batches if batch.summary is not None]
    return await reader.summaries_of(day_obs)
