"""Add what an afterburner measured to the result it belongs to: pure, how it is stored is `rapid.results.store`'s affair.

A result has one row, whatever was measured when. The afterburner's numbers stand among the others; which they are, and
with which software they were measured, is in `Provenance.afterburner`. They are kept when the same result is stored once
more (a job may run twice), and go with it when it is done again with other calibs.
"""

from collections.abc import Mapping
from typing import TypeVar

from rapid.errors import RapidError, Retry
from rapid.results.models import AfterburnerProvenance, DetectorResult, Provenance

T = TypeVar("T")


class NotJoinedError(RapidError):
    """What an afterburner measured does not belong to the result that is stored."""

    code = "not_joined"


class OutdatedError(NotJoinedError):
    """The result is another one than when the afterburner began: measured anew, it will fit."""

    code = "not_joined_outdated"
    retry = Retry.LATER


def is_made_alike(one: Provenance, other: Provenance) -> bool:
    """Whether two results have the same image behind them: raw, settings, calibs and software."""
    names = ("raw_sha256", "config_hash", "calibs", "software_version", "payloads")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def join_results(base: DetectorResult, after: DetectorResult) -> DetectorResult:
    """Return a result with an afterburner's numbers in it; those of an earlier run of the afterburner go.

    Parameters
    ----------
    base
        The result as it is stored.
    after
        What the afterburner found: its own numbers alone.

    Raises
    ------
    NotJoinedError
        Raised if it was measured on another raw, or measured something under a name that the result has already.
    OutdatedError
        Raised if it was measured with other calibs: the result was done again meanwhile.
    """
    old, new = base.provenance, after.provenance
    if old.raw_sha256 != new.raw_sha256:
        raise NotJoinedError("the raw is not the one that the result was made of")
    other = {kind for kind, calib_id in new.calibs.items() if old.calibs.get(kind) != calib_id}
    if other:
        raise OutdatedError(f"the result was done again with another {', '.join(sorted(other))}")
    plain = without_afterburner(base)
    amp_metrics = sorted({name for values in after.amps.values() for name in values})
    _refuse_twice("metric", plain.metrics, after.metrics)
    _refuse_twice("product", plain.products, after.products)
    for amp, values in after.amps.items():
        _refuse_twice(f"metric of amp {amp}", plain.amps.get(amp, {}), values)
    timings = {name: value for name, value in after.timings.items() if name not in plain.timings}
    provenance = AfterburnerProvenance(
        software_version=new.software_version,
        pipeline=new.pipeline,
        pipeline_version=new.pipeline_version,
        config_hash=new.config_hash,
        payloads=new.payloads,
        metrics=sorted(after.metrics),
        amp_metrics=amp_metrics,
        products=sorted(after.products),
        timings=sorted(timings),
        host=new.host,
        finished_at=after.finished_at,
    )
    return plain.model_copy(
        update={
            "metrics": {**plain.metrics, **after.metrics},
            "amps": _joined(plain.amps, after.amps),
            "products": {**plain.products, **after.products},
            "timings": {**plain.timings, **timings},
            "provenance": old.model_copy(update={"afterburner": provenance}),
        }
    )


def keep_joined(result: DetectorResult, stored: DetectorResult) -> DetectorResult:
    """Return a result that takes the place of another, with what an afterburner had added to that if it is made alike."""
    added = stored.provenance.afterburner
    if added is None or result.provenance.afterburner is not None:
        return result
    if not is_made_alike(result.provenance, stored.provenance):
        return result
    amps = {
        amp: {name: value for name, value in values.items() if name in added.amp_metrics}
        for amp, values in stored.amps.items()
    }
    return result.model_copy(
        update={
            "metrics": {**_only(stored.metrics, added.metrics), **result.metrics},
            "amps": _joined({amp: values for amp, values in amps.items() if values}, result.amps),
            "products": {**_only(stored.products, added.products), **result.products},
            "timings": {**_only(stored.timings, added.timings), **result.timings},
            "provenance": result.provenance.model_copy(update={"afterburner": added}),
        }
    )


def without_afterburner(result: DetectorResult) -> DetectorResult:
    """Return a result as it was before an afterburner added to it."""
    added = result.provenance.afterburner
    if added is None:
        return result
    return result.model_copy(
        update={
            "metrics": _without(result.metrics, added.metrics),
            "amps": {amp: kept for amp, values in result.amps.items() if (kept := _without(values, added.amp_metrics))},
            "products": _without(result.products, added.products),
            "timings": _without(result.timings, added.timings),
            "provenance": result.provenance.model_copy(update={"afterburner": None}),
        }
    )


def _refuse_twice(what: str, known: Mapping[str, object], new: Mapping[str, object]) -> None:
    if twice := sorted(known.keys() & new.keys()):
        raise NotJoinedError(f"{what} {twice[0]} is in the result already")


def _joined(first: dict[str, dict[str, T]], second: dict[str, dict[str, T]]) -> dict[str, dict[str, T]]:
    return {amp: {**first.get(amp, {}), **second.get(amp, {})} for amp in {**first, **second}}


def _only(values: Mapping[str, T], names: list[str]) -> dict[str, T]:
    return {name: value for name, value in values.items() if name in names}


def _without(values: Mapping[str, T], names: list[str]) -> dict[str, T]:
    return {name: value for name, value in values.items() if name not in names}
