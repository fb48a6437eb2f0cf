"""What a file is, and whether it is complete."""

import pytest

from rapid.arrival.decide import FileKind, FileLook, Patience, Verdict, Writer, decide_file, kind_of
from rapid.errors import CorruptRawError, EmptyRawError, NotFitsError, TruncatedRawError

PATIENCE = Patience(settle_s=1, closed_s=5, open_s=60)
CUT = TruncatedRawError("cut")
EMPTY = EmptyRawError("empty")
TEXT = NotFitsError("text")
BROKEN = CorruptRawError("broken")

ROWS = [
    ("whole, closed", Writer.GONE, None, 0, Verdict.DELIVER, 0),
    ("whole, being written", Writer.PRESENT, None, 59, Verdict.WAIT, 1),
    ("whole, held open and not touched for long", Writer.PRESENT, None, 60, Verdict.DELIVER, 0),
    ("whole, writer unknown, just changed", Writer.UNKNOWN, None, 0.25, Verdict.WAIT, 0.75),
    ("whole, writer unknown, settled", Writer.UNKNOWN, None, 1, Verdict.DELIVER, 0),
    ("cut, being written", Writer.PRESENT, CUT, 10, Verdict.WAIT, 50),
    ("cut, closed just now", Writer.GONE, CUT, 0, Verdict.WAIT, 5),
    ("cut, closed long ago", Writer.GONE, CUT, 5, Verdict.QUARANTINE, 0),
    ("cut, writer unknown", Writer.UNKNOWN, CUT, 10, Verdict.WAIT, 50),
    ("cut, writer unknown, given up", Writer.UNKNOWN, CUT, 60, Verdict.QUARANTINE, 0),
    ("empty, just made", Writer.PRESENT, EMPTY, 0, Verdict.WAIT, 60),
    ("empty, closed", Writer.GONE, EMPTY, 6, Verdict.QUARANTINE, 0),
    ("no FITS, closed just now", Writer.GONE, TEXT, 0, Verdict.WAIT, 1),
    ("no FITS, closed", Writer.GONE, TEXT, 1, Verdict.QUARANTINE, 0),
    ("no FITS yet, being written", Writer.PRESENT, TEXT, 5, Verdict.WAIT, 55),
    ("broken, writer unknown", Writer.UNKNOWN, BROKEN, 1, Verdict.WAIT, 4),
    ("broken, writer unknown, given up", Writer.UNKNOWN, BROKEN, 5, Verdict.QUARANTINE, 0),
]


@pytest.mark.parametrize(
    ("writer", "problem", "unchanged_s", "verdict", "wait_s"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_what_to_do_with_a_file(writer, problem, unchanged_s, verdict, wait_s):
    assert decide_file(FileLook(writer, problem, unchanged_s), PATIENCE) == (verdict, wait_s)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("MC_O_20251115_000226_R22_S11.fits", FileKind.RAW),
        ("MC_O_20251115_000226_R22_S11.fits.fz", FileKind.RAW),
        ("7024032100720-R22-S11-det094.fits.fz", FileKind.RAW),
        ("anything.FITS.gz", FileKind.RAW),
        ("MC_O_20251115_000226_R00_SG0_guider.fits", FileKind.RAW),
        ("MC_O_20251115_000226_expectedSensors.json", FileKind.EXPECTED_SENSORS),
        ("MC_O_20251115_000226_R22_S11.json", FileKind.OTHER),
        (".MC_O_20251115_000226_R22_S11.fits", FileKind.OTHER),
        (".MC_O_20251115_000226_R22_S11.fits.Qw3xYz", FileKind.OTHER),
        (".MC_O_20251115_000226_expectedSensors.json", FileKind.OTHER),
        ("MC_O_20251115_000226_R22_S11.fits.tmp", FileKind.OTHER),
        ("fits", FileKind.OTHER),
        ("", FileKind.OTHER),
    ],
)
def test_what_a_file_is_by_its_name(name, kind):
    assert kind_of(name) is kind
    assert kind_of(f"/some/where/{name}") is kind
