"""The maker of raws lives with the tests of `payloads.raw`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "payloads_raw"))
