"""A worker that really runs makes ready what an announced visit will need, and processes what comes all the same."""

import time
from datetime import datetime

import numpy as np

from rapid.calibs.store import CalibStore
from rapid.next_visit import store
from rapid.next_visit.models import NextVisit
from tests.support.night import make_plan, take_all

SCIENCE = [{"kind": "science", "n": 1, "physical_filter": "r_57"}]


def test_calibs_are_mapped_for_an_announced_visit_before_its_first_raw(roles):
    calibs = CalibStore(roles.folder / "data/calibs", roles.results)
    records = [
        calibs.certify(
            kind="bias",
            camera="SmallCam9",
            detector=detector,
            image=np.zeros((8, 8), np.float32),
            # Small ones, of a day of the past: an exposure of tonight does not get them.
            valid_from=datetime.fromisoformat("2020-01-01T00:00:00"),
            valid_to=datetime.fromisoformat("2020-01-03T00:00:00"),
            inputs=[1],
        )
        for detector in (90, 91)
    ]
    mapped = [(calibs.root / record.path).with_suffix(".image.npy") for record in records]
    roles.start("worker", "worker-0")
    visits = [
        NextVisit(groupId="g", instrument="SmallCam9", filters="r_57", startTime=1577923200.0, detector=detector)
        for detector in (90, 91)  # as a fan-out service tells
    ]
    roles.wait_for(lambda event: event.kind.value == "worker_joined", timeout_s=180.0)
    assert not any(path.exists() for path in mapped)
    for visit in visits:
        roles.board.connection.run(store.announce(roles.board.prefix, visit, life_s=600, now_ms=1))
    deadline = time.monotonic() + 180
    while not all(path.exists() for path in mapped) and time.monotonic() < deadline:
        roles.board.events("$", timeout_s=0.1)  # a wait that nothing ends
    assert all(path.exists() for path in mapped), (roles.folder / "worker-0.log").read_text()[-2000:]
    assert roles.board.connection.run(store.cancel(roles.board.prefix, "g"))
    roles.start("head", "head")
    roles.start("gather", "gather")
    (exposure_id,) = take_all(make_plan(SCIENCE), roles.raws)
    assert roles.wait_for_summary(exposure_id).data["is_complete"]
    assert roles.stop("worker-0") == 0
