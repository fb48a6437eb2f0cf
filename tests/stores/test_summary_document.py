"""The document of a summary ends as the results store has it, however its writers overtake each other."""

import json

from rapid.products.directory import DirectoryStore
from rapid.products.naming import summary_key
from rapid.products.summary_document import MAX_WRITES, put_summary
from tests.support.records import make_summary


class Crossed:
    """A store in which something else happens after each of the first writes."""

    def __init__(self, store, *events):
        self.store, self.events, self.n_puts = store, list(events), 0

    def put(self, key, data, *, content_type):
        self.store.put(key, data, content_type=content_type)
        self.n_puts += 1
        if self.events:
            self.events.pop(0)()


def document(products, summary):
    return json.loads(products.get(summary_key(summary)))


def test_what_another_added_between_reading_and_writing_is_in_the_document(results, tmp_path):
    summary, products = make_summary(), DirectoryStore(tmp_path)
    results.put_summary(summary)

    def add_mount():
        changed = results.add_to_summary(summary, metrics={"mount_rms_arcsec": 0.05})
        put_summary(changed, products, as_stored=results.same_summary)

    overtaken = results.add_to_summary(summary, metrics={"ee80_radius_arcsec": 0.9})
    crossed = Crossed(products, add_mount)
    reads = [overtaken]  # what it had read before the other came
    put_summary(overtaken, crossed, as_stored=lambda one: reads.pop() if reads else results.same_summary(one))
    assert crossed.n_puts == 2
    assert {"mount_rms_arcsec", "ee80_radius_arcsec"} <= document(products, summary)["metrics"].keys()


def test_a_summary_that_nobody_changes_is_written_once(results, tmp_path):
    summary, products = make_summary(), DirectoryStore(tmp_path)
    results.put_summary(summary)
    crossed = Crossed(products)
    put_summary(summary, crossed, as_stored=results.same_summary)
    assert crossed.n_puts == 1
    stored = results.same_summary(summary)
    assert document(products, summary) == json.loads(stored.model_dump_json())


def test_a_summary_that_never_rests_ends_the_writing(results, tmp_path):
    summary = make_summary()
    results.put_summary(summary)
    changes = [lambda n=n: results.add_to_summary(summary, metrics={"changed": n}) for n in range(3 * MAX_WRITES)]
    crossed = Crossed(DirectoryStore(tmp_path), *changes)
    put_summary(summary, crossed, as_stored=results.same_summary)
    assert crossed.n_puts == MAX_WRITES


def test_of_a_summary_that_no_store_has_the_given_one_is_written(results, tmp_path):
    summary, products = make_summary(), DirectoryStore(tmp_path)
    put_summary(summary, products, as_stored=results.same_summary)
    assert document(products, summary) == json.loads(summary.model_dump_json())
