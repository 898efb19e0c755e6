"""Makes this process the parent of every orphan below it.

A postmaster that is killed leaves backends without a parent. In a container nobody may wait for
them, they stay zombies, and PostgreSQL then refuses to start ("lock file … is still in use").
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


#: Children for which somebody waits who is not in the world: commands that an operator runs.
_awaited: set[int] = set()


@contextmanager
def awaited(pid: int) -> Iterator[None]:
    """Leave this child to the one who waits for it."""
    _awaited.add(pid)
    try:
        yield
    finally:
        _awaited.discard(pid)


def adopt_orphans() -> None:
    """Become the subreaper of everything that is started from now on."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def bury(known: set[int]) -> int:
    """Wait for dead children that nobody else waits for; return how many.

    Args:
        known: children which a Popen waits for; taking their status away would confuse it.
    """
    buried = 0
    for pid, state, parent in _processes():
        if parent == os.getpid() and state == "Z" and pid not in known | _awaited:
            with suppress(ChildProcessError):
                buried += os.waitpid(pid, os.WNOHANG)[0] == pid
    return buried


def state_of(pid: int) -> str:
    """The state letter of a process (R, S, D, T, Z), or X if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _processes() -> list[tuple[int, str, int]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                found.append((int(entry.name), words[0], int(words[1])))
    return found
