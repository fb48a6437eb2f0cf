"""A pipe between a supervisor and its roles: it ends when the supervisor does, however that came about.

A role that was started alone has none and lives on its own. Not ``PR_SET_PDEATHSIG``: that one is Linux only, and is
sent when the *thread* that started a process ends.
"""

import asyncio
import contextlib
import os
import stat
import subprocess

VARIABLE = "_RAPID_LIFELINE_FD"
"""Tells a role which of its files the pipe is. Not a setting: nobody sets it by hand."""

GUARD = 'read -r _; kill "$0"'
"""Shell: wait until the pipe ends, then stop a process. A shell needs a megabyte, an interpreter of ours thirty."""


class Lifeline:
    """The supervisor's side.

    Two pipes: *ours* ends when the supervisor does; the roles hold the other one open too, so that *theirs* ends only
    when the last of them has gone as well. The server they all need may go then, and not before.
    """

    def __init__(self) -> None:
        self._ours, self._ours_end = os.pipe()
        self._theirs, self._theirs_end = os.pipe()

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Files that a role inherits."""
        return (self._ours, self._theirs_end)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that a role is given."""
        return {VARIABLE: str(self._ours)}

    def guard(self, pid: int) -> "subprocess.Popen[bytes]":
        """Start a process that stops another one once supervisor and roles have gone."""
        return subprocess.Popen(  # noqa: S603 - a constant script
            ["/bin/sh", "-c", GUARD, str(pid)],
            stdin=self._theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Close our ends: roles that still run are told to stop."""
        for descriptor in (self._ours, self._ours_end, self._theirs, self._theirs_end):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def stop_with_supervisor(stop: asyncio.Event) -> None:
    """Set an event when the supervisor that started this process has gone; do nothing if none did."""
    text = os.environ.get(VARIABLE, "")
    if not text.isdigit():
        return
    descriptor = int(text)
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return
    except OSError:
        return  # the variable was inherited, the file was not: a process that a role started
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(descriptor)
        stop.set()

    loop.add_reader(descriptor, ended)
