"""Raws that come again."""

from rapid.arrival.dedupe import Content, Deduper, Identity, Novelty

RAW = Identity("LSSTCam", 2026112000001, 94)
FIRST = Content("/a.fits", 100, "1")


def test_each_detector_exposure_and_guider_is_new():
    deduper = Deduper()
    others = [
        RAW,
        Identity("LSSTCam", 2026112000001, 95),
        Identity("LSSTCam", 2026112000002, 94),
        Identity("LATISS", 2026112000001, 94),
        Identity("LSSTCam", 2026112000001, 94, is_guider=True),
    ]
    assert [deduper.take(one, FIRST)[0] for one in others] == [Novelty.NEW] * 5


def test_the_same_content_is_a_duplicate_from_wherever_it_comes():
    deduper = Deduper()
    deduper.take(RAW, FIRST)
    assert deduper.take(RAW, FIRST) == (Novelty.DUPLICATE, FIRST)
    assert deduper.take(RAW, Content("/b.fits", 100, "2")) == (Novelty.DUPLICATE, FIRST)
    assert deduper.take(RAW, FIRST) == (Novelty.DUPLICATE, FIRST), "a copy does not take its place"


def test_other_content_replaces_and_the_newer_wins():
    deduper = Deduper()
    deduper.take(RAW, FIRST)
    longer = Content("/b.fits", 101, "2")
    touched = Content("/b.fits", 101, "3")
    assert deduper.take(RAW, longer) == (Novelty.REPLACEMENT, FIRST)
    assert deduper.take(RAW, touched) == (Novelty.REPLACEMENT, longer)
    assert deduper.take(RAW, touched) == (Novelty.DUPLICATE, touched)


def test_memory_is_bounded_and_the_oldest_is_forgotten():
    deduper = Deduper(remembered=2)
    for detector in range(3):
        deduper.take(Identity("LSSTCam", 1, detector), FIRST)
    assert deduper.take(Identity("LSSTCam", 1, 2), FIRST)[0] is Novelty.DUPLICATE
    assert deduper.take(Identity("LSSTCam", 1, 0), FIRST)[0] is Novelty.NEW
