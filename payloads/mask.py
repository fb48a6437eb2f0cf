"""Mask planes: names and bits, those of the field."""

MASK_PLANES: dict[str, int] = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
    "CROSSTALK": 9,
    "ITL_DIP": 10,
    "UNMASKEDNAN": 11,
    "VIGNETTED": 12,
}
"""Bit number of every plane."""

BAD = 1 << MASK_PLANES["BAD"]
SAT = 1 << MASK_PLANES["SAT"]
INTRP = 1 << MASK_PLANES["INTRP"]
CR = 1 << MASK_PLANES["CR"]
EDGE = 1 << MASK_PLANES["EDGE"]
SUSPECT = 1 << MASK_PLANES["SUSPECT"]
NO_DATA = 1 << MASK_PLANES["NO_DATA"]
CROSSTALK = 1 << MASK_PLANES["CROSSTALK"]
UNMASKEDNAN = 1 << MASK_PLANES["UNMASKEDNAN"]

NOT_FOR_STATISTICS = BAD | SAT | NO_DATA | UNMASKEDNAN
"""Pixels that say nothing about the sky."""
