"""Which pools of workers a camera needs, and what a worker of some pools should have ready."""

from collections.abc import Collection, Iterable

from rapid.pipeline.models import PipelineBook

SHARED = frozenset({"science", "build"})
"""Pools that ordinary workers are for; pipelines name others to have workers of their own."""


def own_pools(book: PipelineBook, *, camera: str) -> dict[str, int]:
    """Return the pools beside the shared ones that the rules can ask for on images of a camera, with one worker each."""
    return {pipeline.pool: 1 for pipeline in book.for_camera(camera) if pipeline.pool not in SHARED}


def other_pools(pools: str, own: dict[str, int]) -> list[str]:
    """Return the pools left for ordinary workers.

    Parameters
    ----------
    pools
        All pools they would serve, comma separated, by preference.
    own
        Workers that serve a pool alone. A pool with none is left to all, after the others.

    Examples
    --------
    >>> other_pools("science,wavefront,build", {"wavefront": 1})
    ['science', 'build']
    >>> other_pools("science,wavefront,build", {"spectra": 0})
    ['science', 'wavefront', 'build', 'spectra']
    """
    named = [part.strip() for part in pools.split(",") if part.strip()]
    unserved = [pool for pool, n in own.items() if n == 0]
    return [pool for pool in dict.fromkeys([*named, *unserved]) if own.get(pool, 0) == 0]


def warm_pipelines(book: PipelineBook, *, camera: str, pools: Collection[str]) -> Iterable[str]:
    """Yield pipelines that together hold every payload the rules can ask a worker of some pools for."""
    seen: set[str] = set()
    for pipeline in book.for_camera(camera):
        payloads = {step.payload for step in pipeline.steps}
        if pipeline.pool in pools and not payloads <= seen:
            seen |= payloads
            yield pipeline.name
