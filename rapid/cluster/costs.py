"""What jobs cost: as measured here, or as a results store has it."""

from pathlib import Path

from rapid.camera.models import Camera
from rapid.cluster.plan import Costs, with_measured
from rapid.errors import ConfigurationError
from rapid.results.store import open_results

BUILT_IN = {
    "quicklook": Costs(
        core_s=0.254,
        spread=0.15,
        fixed_s=0.039,
        memory_gb=0.605,
        source="bench/bench_roles.py --camera LATISS, one 4k x 4k CCD",
    ),
}
"""Measured on the machine that docs/operations.md names, as its peak memory was; other machines differ."""

N_EXPOSURES = 20


def costs_of(pipeline: str, results_url: str, camera: Camera) -> Costs:
    """Return the costs of a pipeline.

    Parameters
    ----------
    results_url
        Results store of an installation whose last exposures are taken; the built-in costs if empty.

    Raises
    ------
    ConfigurationError
        Raised for a pipeline of which nothing was measured.
    """
    base = BUILT_IN.get(pipeline)
    if not results_url:
        if base is None:
            raise ConfigurationError("pipeline", f"nothing built in for {pipeline}; give a results store by --measured")
        return base
    if not _is_there(results_url):
        raise ConfigurationError("measured", f"no database at {results_url}")
    results = open_results(results_url)
    try:
        exposures = sorted({one.exposure for one in results.summaries(camera.name, limit=3 * N_EXPOSURES)})[
            -N_EXPOSURES:
        ]
        found = [one for number in exposures for one in results.results(number, camera=camera.name, pipeline=pipeline)]
    finally:
        results.close()
    if not found:
        raise ConfigurationError("measured", f"{results_url} has no result of {pipeline} on {camera.name}")
    return with_measured(
        base or Costs(core_s=1.0),
        [one.timings for one in found],
        [one.resources["max_rss_mb"] for one in found if "max_rss_mb" in one.resources],
        source=f"{len(found)} jobs in {results_url}",
        exposures=[one.exposure for one in found],
    )


def _is_there(url: str) -> bool:
    """Whether a results store of a file exists; opening one that does not would make it. True of servers."""
    if "://" not in url:
        return Path(url).is_file()
    return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).is_file()
