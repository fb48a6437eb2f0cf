"""A worker that is told of excluded amps keeps its memory."""

from rapid.pipeline.store import default_book, load_pipeline
from rapid.worker.run import KEPT_CONFIGURATIONS, PipelineRunner


def test_of_many_configurations_of_a_pipeline_only_the_newest_stay_built():
    runner = PipelineRunner()
    usual = load_pipeline("quicklook", default_book())
    other = runner.payloads_of(load_pipeline("bias", default_book()))
    built = []
    for number in range(4):
        changed = usual.with_config({"isr": {"excluded_amps": {"R22_S11": {"C00": f"reason {number}"}}}})
        built.append(runner.payloads_of(changed))
        assert runner.payloads_of(changed) is built[-1]
    assert runner.payloads_of(load_pipeline("bias", default_book())) is other
    assert len(runner._built) == KEPT_CONFIGURATIONS + 1
    assert runner._built.keys() == runner._hashes.keys()
