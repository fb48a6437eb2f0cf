"""What used a calib: written down with the result, on both databases, and by the migration for what is stored."""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from rapid.provenance.store import ProvenanceStore
from rapid.results.engine import MIGRATIONS
from rapid.results.store import open_results
from tests.support.records import make_result


def result_using(seq_num: int, detector: int = 94, *, calibs=None, inputs=(), pipeline: str = "quicklook"):
    result = make_result(seq_num, detector)
    provenance = result.provenance.model_copy(update={"calibs": calibs or {}, "inputs": list(inputs)})
    return result.model_copy(update={"pipeline": pipeline, "provenance": provenance})


def used(results, calib: str) -> set[tuple[int, str, tuple[int, ...]]]:
    camera = result_using(1).camera
    found = ProvenanceStore(results.engine).affected(camera, calib=calib)
    return {(batch.exposure % 100_000, batch.pipeline, batch.detectors) for batch in found.batches}


def test_a_result_that_is_stored_again_forgets_what_it_used_before(results):
    results.put_result(result_using(1, 94, calibs={"flat": "F1", "bias": "B1"}))
    results.put_result(result_using(1, 95, calibs={"flat": "F1_"}))
    results.put_result(result_using(2, 94, calibs={"flat": "F1"}))
    assert used(results, "F1") == {(1, "quicklook", (94,)), (2, "quicklook", (94,))}
    assert used(results, "F1*") == {(1, "quicklook", (94, 95)), (2, "quicklook", (94,))}
    assert used(results, "F1_") == {(1, "quicklook", (95,))}
    results.put_result(result_using(1, 94, calibs={"flat": "F2", "bias": "B1"}))
    assert used(results, "F1") == {(2, "quicklook", (94,))}
    assert used(results, "F2") == {(1, "quicklook", (94,))}
    assert used(results, "B1") == {(1, "quicklook", (94,))}


def test_a_database_of_before_is_filled_in_by_the_migration(results, results_url):
    results.put_result(result_using(1, 94, calibs={"flat": "F1"}))
    results.put_result(result_using(3, 94, calibs={"bias": "B1"}, inputs=[1, 2], pipeline="build_flat"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with results.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
    results.close()
    again = open_results(results_url)
    try:
        assert used(again, "F1") == {(1, "quicklook", (94,))}
        assert used(again, "B1") == {(3, "build_flat", (94,))}
        # Numbers that the migration gave are not given again.
        again.put_result(result_using(4, 94, calibs={"flat": "F9"}))
        assert used(again, "F9") == {(4, "quicklook", (94,))}
        with again.engine.connect() as connection:
            n_rows = connection.execute(sa.text("SELECT COUNT(*) FROM result_input")).scalar_one()
        assert n_rows == 2
    finally:
        again.close()
