"""What is answered of the exposures of a request."""

from collections.abc import Iterable

from rapid.camera.models import Camera
from rapid.head.targets import Target
from rapid.requests.answers import ExposureAnswer

MAX_WITH_METRICS = 100
"""Exposures in an answer that carry all their numbers; of more they are to be read from the results store."""


def answers_of(targets: Iterable[Target], camera: Camera) -> tuple[tuple[ExposureAnswer, ...], tuple[str, ...]]:
    """Return what became of every exposure, and notes on what is left out."""
    processed = sorted(targets, key=lambda target: (target.key.exposure_id, target.key.pipeline))
    is_long = len(processed) > MAX_WITH_METRICS
    answers = []
    for target in processed:
        summary, finished = target.summary, target.n_finished
        reasons = {**target.without_raw, **target.not_finished}
        excluded = target.excluded
        n_wanted = len(target.wanted) - len(excluded)
        answers.append(
            ExposureAnswer(
                exposure_id=target.key.exposure_id,
                pipeline=target.key.pipeline,
                run=target.key.run,
                n_finished=finished,
                n_expected=n_wanted + len(target.without_raw),
                is_complete=target.has_ended and finished == n_wanted and not target.without_raw,
                metrics=dict(summary.metrics) if summary and not is_long else {},
                products=dict(summary.products) if summary else {},
                excluded={camera.by_id[number].name: why for number, why in sorted(excluded.items())},
                not_finished={camera.by_id[number].name: why for number, why in sorted(reasons.items())},
            )
        )
    note = f"numbers are left out of more than {MAX_WITH_METRICS} exposures: the results store has them"
    return tuple(answers), (note,) if is_long else ()
