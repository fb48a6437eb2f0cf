"""What is restored after Redis lost the control state, and what is mended."""

from rapid.camera.store import load_camera
from rapid.control.decide import decide_restoration, mending_patch, states_of
from rapid.control.models import ControlChange, ControlDocument, ControlState
from rapid.pipeline.models import PipelineBook
from rapid.pipeline.store import default_book

CAMERA = load_camera("LSSTCam")


def change(version: int, after: dict, *, at: int | None = None, before: dict | None = None) -> ControlChange:
    return ControlChange(
        version=version, changed_by="ann", changed_ms=at or 1000 + version, door="cli", before=before or {}, after=after
    )


def document(version: int, **state: object) -> ControlDocument:
    return ControlDocument(version=version, state=ControlState.model_validate(state), changed_ms=1000 + version)


STORED = document(2, pattern="minimal", visit_mode="alternating")
STORED_LOG = [change(1, {"pattern": "minimal"}), change(2, {"visit_mode": "alternating"})]


def test_a_board_that_goes_on_from_the_store_is_left_alone():
    assert decide_restoration(STORED, STORED_LOG, STORED, STORED_LOG) is None
    newer = document(3, pattern="all", visit_mode="alternating")
    assert decide_restoration(newer, [*STORED_LOG, change(3, {"pattern": "all"})], STORED, STORED_LOG) is None


def test_a_first_start_restores_nothing():
    assert decide_restoration(ControlDocument(), [], ControlDocument(), []) is None


def test_an_empty_board_gets_the_stored_state_and_its_log():
    restoration = decide_restoration(ControlDocument(), [], STORED, STORED_LOG)
    assert restoration.document == STORED
    assert list(restoration.changes) == STORED_LOG


def test_what_was_changed_on_the_emptied_board_is_made_anew_on_the_stored_state():
    after_flush = change(1, {"worker_mode": "waiting"}, at=5000)
    restoration = decide_restoration(document(1, worker_mode="waiting"), [after_flush], STORED, STORED_LOG)
    state = restoration.document.state
    assert (state.pattern, state.worker_mode.value, restoration.document.version) == ("minimal", "waiting", 3)
    assert [entry.version for entry in restoration.changes] == [1, 2, 3]


def test_a_board_that_fell_back_to_an_older_state_gets_the_newest():
    restoration = decide_restoration(document(1, pattern="minimal"), STORED_LOG[:1], STORED, STORED_LOG)
    assert restoration.document == STORED


def test_a_state_that_cannot_be_read_is_replaced():
    assert decide_restoration(None, [], STORED, STORED_LOG).document == STORED
    fresh = decide_restoration(None, [], ControlDocument(), [])
    assert (fresh.document.state, fresh.document.version) == (ControlState(), 1)


def test_a_change_that_no_longer_fits_is_dropped_with_its_reason():
    nonsense = change(1, {"no_such_field": 1}, at=5000)
    restoration = decide_restoration(document(1), [nonsense], STORED, STORED_LOG)
    assert restoration.document == STORED
    ((dropped, reason),) = restoration.dropped
    assert dropped == nonsense
    assert "no_such_field" in reason


def test_states_are_taken_back_from_the_newest():
    changes = [
        change(1, {"pattern": "minimal"}, before={"pattern": "all"}),
        change(2, {"patterns.mine": "R22"}, before={"patterns.mine": None}),
        change(3, {"visit_mode": "alternating"}, before={"visit_mode": "constant"}),
    ]
    newest = document(3, pattern="minimal", patterns={"mine": "R22"}, visit_mode="alternating")
    states = states_of(newest, changes)
    assert states[3] == newest.state
    assert states[2] == ControlState(pattern="minimal", patterns={"mine": "R22"})
    assert states[1] == ControlState(pattern="minimal")


def test_a_pipeline_that_has_gone_is_taken_back_and_the_rest_stays():
    book = default_book()
    left = PipelineBook(pipelines=tuple(p for p in book.pipelines if p.name != "quicklook"), rules=())
    state = ControlState(pattern="minimal", pipelines={"science": "quicklook"}, witness_detector=999)
    patch, reasons = mending_patch(state, CAMERA, left)
    assert patch == {"pipelines": None, "witness_detector": None}
    assert len(reasons) == 2
    assert mending_patch(ControlState(pattern="minimal"), CAMERA, book) == ({}, [])
