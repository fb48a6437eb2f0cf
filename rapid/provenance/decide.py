"""Decide in which order calibs are rebuilt: pure."""

from collections.abc import Iterable, Mapping


def stages_of(sources: Iterable[int], children: Mapping[int, Iterable[int]]) -> dict[int, int]:
    """Return the stage of each calib: the longest way to it from one that is bad.

    Parameters
    ----------
    sources
        The bad ones: stage 0.
    children
        By calib, those that were built with it.

    Returns
    -------
    stages
        By calib. One of stage 2 was built with one of stage 1, which has to be rebuilt before.

    Notes
    -----
    The longest way, not the shortest: a flat is built with a bias and with a dark that was built with that bias.
    A calib is built of what is there already, so the graph has no circles; a corrupt one ends where it began.

    Examples
    --------
    >>> stages_of([1], {1: [2, 3], 2: [3]})
    {1: 0, 2: 1, 3: 2}
    """
    stages = dict.fromkeys(sources, 0)
    frontier = list(stages)
    limit = len({*children, *(child for found in children.values() for child in found)}) + 1
    for stage in range(1, limit + 1):
        found = {child: None for parent in frontier for child in children.get(parent, ())}
        frontier = [child for child in found if stages.get(child, -1) < stage and stages.get(child) != 0]
        if not frontier:
            break
        stages.update(dict.fromkeys(frontier, stage))
    return stages
