"""Write a summary's document so that the last word is the results store's.

Several processes add to a summary that is out (plots, an afterburner's numbers, the mount's motion) and each writes
``summary.vN.json`` anew. The store puts their changes in order; the documents could overtake each other.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from rapid.products.naming import SummaryFacts, summary_key
from rapid.products.store import ProductsStore

MAX_WRITES = 5
"""More changes than that, each between a write and a look, would be more than there are parts of a summary."""


class _Document(SummaryFacts, Protocol):
    def model_dump_json(self) -> str: ...


Summary = TypeVar("Summary", bound=_Document)


def put_summary(summary: Summary, products: ProductsStore, *, as_stored: Callable[[Summary], Summary | None]) -> None:
    """Write a summary as the store has it; again, if it has changed meanwhile.

    Parameters
    ----------
    as_stored
        Reads the same version of the summary; None if it is not there.

    Notes
    -----
    Who writes last looks last, so what stays is what the store had then: that holds for any number of writers.
    """
    key = summary_key(summary, kind="summary", extension="json")
    document = (as_stored(summary) or summary).model_dump_json()
    for _ in range(MAX_WRITES):
        products.put(key, document.encode(), content_type="application/json")
        stored = as_stored(summary)
        newest = document if stored is None else stored.model_dump_json()
        if newest == document:
            return
        document = newest
