"""Say of a summary what its results were made with: pure."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby

from rapid.results.models import DetectorResult, SummaryProvenance


def checksum_of(parts: Mapping[int, str]) -> str:
    """Return one checksum for several: sha256 over lines of number, space, checksum, in order.

    Examples
    --------
    >>> checksum_of({2: "b", 1: "a"}) == checksum_of({1: "a", 2: "b"})
    True
    """
    lines = "".join(f"{number} {checksum}\n" for number, checksum in sorted(parts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def ranges_of(numbers: Iterable[int]) -> str:
    """Return numbers as ranges.

    Examples
    --------
    >>> ranges_of([3, 1, 2, 7])
    '1-3,7'
    """
    runs = groupby(enumerate(sorted(set(numbers))), lambda pair: pair[1] - pair[0])
    found = [[number for _, number in run] for _, run in runs]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)


def without_detector(calib_id: str, detector: int) -> str:
    """Return a calib id with ``*`` for the detector's number, as commands take it.

    Examples
    --------
    >>> without_detector("LSSTCam-094-bias-20261120T200100-v1", 94)
    'LSSTCam-*-bias-20261120T200100-v1'
    """
    return calib_id.replace(f"-{detector:03d}-", "-*-", 1)


def provenance_of(
    pipeline: str, results: Iterable[DetectorResult], *, software_version: str, host: str
) -> SummaryProvenance:
    """Return how a summary came to be.

    Parameters
    ----------
    results
        Those that it is made of: one pipeline's, one of each detector.
    software_version, host
        Of whoever makes the summary.
    """
    found = sorted(results, key=lambda one: one.detector)
    versions: dict[str, set[str]] = defaultdict(set)
    alike: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    calibs: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    raws: dict[int, str] = {}
    inputs: set[int] = set()
    for result in found:
        origin, detector = result.provenance, result.detector
        alike["results"][origin.software_version].append(detector)
        alike["pipeline_versions"][origin.pipeline_version].append(detector)
        alike["config_hashes"][origin.config_hash].append(detector)
        for name, version in origin.payloads.items():
            versions[name].add(version)
        for kind, calib_id in origin.calibs.items():
            calibs[kind][without_detector(calib_id, detector)].append(detector)
        raws[detector] = origin.raw_sha256
        inputs |= set(origin.inputs)
    return SummaryProvenance(
        software_version=software_version,
        pipeline=pipeline,
        results=_ranges(alike["results"]),
        pipeline_versions=_ranges(alike["pipeline_versions"]),
        config_hashes=_ranges(alike["config_hashes"]),
        payloads={name: sorted(several) for name, several in sorted(versions.items())},
        calibs={kind: _ranges(used) for kind, used in sorted(calibs.items())},
        raw_sha256=raws,
        raws_sha256=checksum_of(raws) if raws else "",
        inputs=sorted(inputs),
        afterburners=afterburners_of(found),
        host=host,
    )


def afterburners_of(results: Iterable[DetectorResult]) -> dict[str, str]:
    """Return configuration hashes of the afterburners that have added to some results, with the detectors."""
    found: dict[str, list[int]] = defaultdict(list)
    for result in results:
        if (added := result.provenance.afterburner) is not None:
            found[added.config_hash].append(result.detector)
    return _ranges(found)


def _ranges(found: Mapping[str, list[int]]) -> dict[str, str]:
    return {value: ranges_of(detectors) for value, detectors in found.items()}
