"""Kills a child process (SIGKILL) at a chosen point and looks at what it left behind.

Run as a program of its own, so that forking is safe: one thread, everything imported before the first fork.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

# What the interpreter announces before it does it (PEP 578): every change to the file system.
_CHANGES = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "fcntl.flock", "shutil.rmtree"}


def in_child(work: Callable[[], None]) -> int:
    """Do the work in a forked child: 0 when it finished, 9 when it was killed, else its failure."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the parent is told by the exit code
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def die() -> None:
    """Like kill -9 from outside: no cleanup, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_change(k: int, root: str) -> None:
    """From now on, die just before the k-th change under `root`."""
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _CHANGES:
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if isinstance(args[0], str | os.PathLike) and not os.fspath(args[0]).startswith(root):
            return
        seen += 1
        if seen == k:
            die()

    sys.addaudithook(hook)
