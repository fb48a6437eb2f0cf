"""Summary steps of installed packages: entry points of the group ``rapid.gather_steps``."""

from collections.abc import Callable

import structlog

from rapid.errors import RapidError
from rapid.plugins import GATHER_STEPS, entries_of, load_entry
from rapid.products.store import ProductsStore
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()


def installed_steps() -> tuple[Callable[[ExposureSummary, ResultsStore, ProductsStore], None], ...]:
    """Return the steps that installed packages register, in the order of their names.

    One that cannot be imported is left out and logged: a night goes on without it.
    """
    steps = []
    for name in entries_of(GATHER_STEPS):
        try:
            step = load_entry(GATHER_STEPS, name)
        except RapidError as error:
            log.error("gather step left out", step=name, error=error.message)
            continue
        if callable(step):
            steps.append(step)
        else:
            log.error("gather step left out", step=name, error="it cannot be called")
    return tuple(steps)
