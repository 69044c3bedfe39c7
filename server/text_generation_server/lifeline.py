"""Ends this process when the launcher is gone, so that no shard outlives it.

Two ways, because each covers what the other cannot: the kernel's parent-death signal reaches a process that hangs,
the pipe reaches a process whose parent died before the signal was asked for.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
import threading

PR_SET_PDEATHSIG = 1


class Orphaned(Exception):
    """The parent was gone before this process could tie itself to it."""


def die_with(parent_pid: int) -> None:
    """Ties this process to its parent. Linux has the signal; elsewhere the pipe alone must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        raise Orphaned(f"the parent {parent_pid} is gone")


def watch_stdin() -> None:
    """Exits at the end of standard input, if that is a pipe somebody holds open."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        threading.Thread(target=_exit_at_end, name="lifeline", daemon=True).start()


def _exit_at_end() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)
