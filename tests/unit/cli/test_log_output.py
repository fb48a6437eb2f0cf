"""A log that cannot be written ends nobody."""

import subprocess
import sys

WRITER = """
import resource, sys
import structlog
from rapid.wiring.logs import configure_logs
configure_logs()
log = structlog.get_logger()
log.info("before")
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
log.info("while the disk is full")
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
log.info("after")
"""


def test_a_role_whose_log_is_on_a_full_disk_goes_on_and_tells_again_when_there_is_room(tmp_path):
    with (tmp_path / "role.log").open("w") as log:
        ended = subprocess.run([sys.executable, "-c", WRITER], stderr=log, timeout=120, check=False)
    text = (tmp_path / "role.log").read_text()
    assert ended.returncode == 0, text
    assert '"event": "before"' in text
    assert '"event": "after"' in text
