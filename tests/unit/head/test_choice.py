"""What is done with an exposure under which control state (I9)."""

import pytest

from rapid.camera.store import load_camera
from rapid.control.models import ControlDocument, ControlState, SheddingPolicy, Timeouts
from rapid.dispatch.models import BatchKey, BoardTime, Load
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.head.choice import Chooser, Waits, rungs
from rapid.patterns import VisitMode
from rapid.pipeline.store import default_book

LSSTCAM = load_camera("LSSTCam")
LATISS = load_camera("LATISS")


def info(seq_num: int = 12, image_type: ImageType = ImageType.SCIENCE) -> ExposureInfo:
    return ExposureInfo(
        camera="LSSTCam",
        exposure_id=2026112000000 + seq_num,
        obs_id=f"MC_O_20261120_{seq_num:06d}",
        controller="O",
        day_obs=20261120,
        seq_num=seq_num,
        detector=94,
        detector_name="R22_S11",
        image_type=image_type,
    )


class FakeBoard:
    """Tells a load, and what was posted before."""

    def __init__(self, load: Load, control: dict[str, object] | None = None):
        self.load = load
        self.control = control
        self.asked: list[tuple[str, str]] = []
        self.now_s, self.rate = 0.0, 1.0

    async def time(self) -> BoardTime:
        return BoardTime(now_ms=round(self.now_s * 1000), rate=self.rate)

    async def load_of(self, pool: str, pipeline: str) -> Load:
        self.asked.append((pool, pipeline))
        return self.load

    async def recent(self, _n: int):
        return [] if self.control is None else [BatchKey(exposure_id=2026112000001, pipeline="quicklook")]

    async def state(self, _key: BatchKey):
        class State:
            control = self.control

        return State()


class Control:
    """The control state in force."""

    def __init__(self, **state: object):
        self.document = ControlDocument(version=3, state=ControlState(**state))

    async def read(self) -> ControlDocument:
        return self.document


IDLE = Load(workers=189, running_current=0, running_backlog=0, queued_current=0, job_s=1.0)
SWAMPED = Load(workers=4, running_current=4, running_backlog=0, queued_current=900, job_s=1.0)


def chooser(control: Control, load: Load = IDLE, camera=LSSTCAM, before=None) -> Chooser:
    return Chooser(camera, FakeBoard(load, before), default_book(), control, Waits())


async def choose(who: Chooser, what: ExposureInfo, header=None, at_s: float = 0.0, excluded=None):
    who._board.now_s = at_s
    return await who.choose(what, header or {}, excluded=excluded or {})


async def test_by_default_every_science_detector_is_processed_now():
    choice = await choose(chooser(Control()), info())
    assert choice.selected == LSSTCAM.science_ids
    assert choice.later == {}
    assert choice.control["pattern"] == "all"
    assert choice.control["version"] == 3


async def test_detectors_outside_the_pattern_are_left_for_later_with_the_reason():
    choice = await choose(chooser(Control(pattern="R22")), info())
    assert len(choice.selected) == 9
    assert len(choice.later) == 180
    assert set(choice.later.values()) == {"not in pattern R22"}


async def test_alternating_visits_take_turns_and_together_cover_the_focal_plane():
    who = chooser(Control(pattern="ccd_checkerboard", visit_mode=VisitMode.ALTERNATING))
    first, second, third = [await choose(who, info(n), at_s=34.0 * n) for n in (1, 2, 3)]
    assert first.selected == third.selected
    assert first.selected | second.selected == LSSTCAM.science_ids
    assert not first.selected & second.selected
    assert [c.control["phase"] for c in (first, second, third)] == [0, 1, 0]


async def test_a_new_head_goes_on_with_the_phase_of_the_one_before():
    who = chooser(
        Control(pattern="ccd_checkerboard", visit_mode=VisitMode.ALTERNATING), before={"visit": 6, "shed_level": 0}
    )
    await who.resume()
    assert (await choose(who, info())).control["visit"] == 7


@pytest.mark.parametrize(
    ("control", "header"),
    [
        pytest.param(Control(pattern="R22", guaranteed=frozenset({2026112000012})), {}, id="by id"),
        pytest.param(Control(pattern="R22"), {"RAPIDALL": True}, id="by header"),
    ],
)
async def test_a_guaranteed_exposure_is_processed_on_every_detector_whatever_the_load(control, header):
    who = chooser(control, SWAMPED)
    for n in (1, 2, 3):
        await choose(who, info(n), at_s=34.0 * n)
    choice = await choose(who, info(12), header, at_s=136.0)
    assert choice.selected == LSSTCAM.science_ids
    assert choice.later == {}
    assert choice.control["guaranteed"] is True


async def test_a_swamped_system_sheds_and_says_so():
    who = chooser(Control(), SWAMPED)
    choices = [await choose(who, info(n), at_s=34.0 * n) for n in range(1, 6)]
    assert choices[0].control["shed_level"] == 0, "the cadence is not known yet"
    assert choices[-1].control["shed_level"] > 0
    assert len(choices[-1].selected) < 189
    assert choices[-1].control["cadence_s"] == 34.0
    assert choices[-1].control["predicted_s"] > 34.0
    assert all("shed to" in why for why in choices[-1].later.values())
    assert choices[-1].selected | choices[-1].later.keys() == LSSTCAM.science_ids, "nothing is lost"


async def test_calibration_images_are_never_shed():
    who = chooser(Control(), SWAMPED)
    choices = [await choose(who, info(n, ImageType.BIAS), at_s=5.0 * n) for n in range(1, 6)]
    assert {choice.control["shed_level"] for choice in choices} == {0}


async def test_an_older_exposure_that_comes_late_is_not_shed_and_says_nothing_of_the_cadence():
    who = chooser(Control(), SWAMPED)
    for n in range(5, 10):
        await choose(who, info(n), at_s=34.0 * n)
    late = await choose(who, info(1), at_s=400.0)
    assert late.control["shed_level"] == 0
    assert (await choose(who, info(10), at_s=374.0)).control["cadence_s"] == 34.0


async def test_an_excluded_detector_is_neither_processed_nor_left_for_later():
    choice = await choose(chooser(Control(pattern="R22")), info(), excluded={94: "dead", 5: "hot"})
    assert 94 not in choice.selected
    assert 5 not in choice.later
    assert choice.excluded == {94: "dead", 5: "hot"}


async def test_timeouts_of_the_control_state_go_before_those_of_the_installation():
    who = chooser(Control(timeouts=Timeouts(gather_s=2.5)))
    choice = await choose(who, info())
    assert choice.waits == Waits(gather_ms=2_500, regather_ms=45_000, deadline_ms=120_000)


async def test_another_pipeline_for_an_image_type():
    choice = await choose(chooser(Control(pipelines={ImageType.SCIENCE: "donut"})), info())
    assert choice.pipelines == {"science": "donut"}
    assert (await choose(chooser(Control(pipelines={ImageType.BIAS: "quicklook"})), info())).pipelines == {}


def test_rungs_only_go_down_and_leave_out_what_the_camera_cannot_do():
    policy = SheddingPolicy(ladder=("ccd_checkerboard", "all", "raft_checkerboard", "minimal"))
    sizes = [len(detectors) for _, detectors in rungs(ControlState(shedding=policy), LSSTCAM, 0)]
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[0] == 189
    assert len(rungs(ControlState(shedding=policy), LATISS, 0)) == 1, "one detector cannot be fewer"
