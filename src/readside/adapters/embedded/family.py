"""The processes below a process, and those that an earlier owner of a directory left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

#: Seconds that SIGKILL is given to take effect; it needs microseconds unless a disk hangs.
KILL_SECONDS = 2.0


def parents() -> dict[int, int]:
    """Each living process and its parent; zombies are not alive.

    psutil would do, but it comes with one of the wheels only, and PostgreSQL may be the system's.
    """
    return _parents_in_proc() if sys.platform == "linux" else _parents_by_ps()


def descendants(pid: int) -> list[int]:
    """The living processes below `pid`, without itself."""
    links = parents()
    found = {pid}
    while more := {child for child, parent in links.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def freeze(pids: Iterable[int]) -> None:
    """Stop processes by SIGSTOP and wait until each of their threads stands still.

    The signal alone is not enough: a thread on another processor may answer once more.
    """
    frozen = list(pids)
    send(frozen, signal.SIGSTOP)
    wait_until(lambda: all(map(_stands_still, frozen)), KILL_SECONDS)


def freeze_tree(pid: int) -> list[int]:
    """Stop a process and everything below it; return those below, of which none can fork now.

    One look does not do: a child that still runs may fork between the look and its signal,
    and once it is killed nothing tells any more that the grandchild was one of ours.
    """
    freeze([pid])
    frozen: set[int] = set()
    while fresh := set(descendants(pid)) - frozen:
        freeze(fresh)
        frozen |= fresh
    return sorted(frozen)


def kill(pids: Iterable[int]) -> None:
    """End processes by SIGKILL and wait until they are gone, at most KILL_SECONDS."""
    doomed = set(pids)
    send(doomed, signal.SIGKILL)
    wait_until(lambda: not doomed & parents().keys(), KILL_SECONDS)
    for pid in doomed:
        # In a container where we are process 1, orphaned grandchildren became our children.
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait, blocking, until `condition` holds; False when it still does not after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def squatters(home: Path, programs: set[str]) -> list[int]:
    """Processes of these programs whose working directory is `home`; Linux only, else none.

    Every server is started in a directory of its own, so this recognises what a crashed owner
    left behind without trusting a recorded process number, which may be somebody else's by now.
    """
    if sys.platform != "linux":
        return []
    return [pid for pid in parents() if _squats(Path(f"/proc/{pid}"), str(home), programs)]


def _stands_still(pid: int) -> bool:
    if sys.platform != "linux":
        return True
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        # D: in the kernel, from where it stops before it runs on; so waits the parent of a vfork
        # whose child was stopped before its exec, for as long as that one is stopped.
        return all(_fields(thread)[0] in b"TtZXD" for thread in threads)
    except OSError:  # gone
        return True


def _fields(process: Path) -> list[bytes]:
    # The name in brackets may hold anything, so read what follows the last bracket.
    return (process / "stat").read_bytes().rpartition(b")")[2].split()


def _squats(process: Path, home: str, programs: set[str]) -> bool:
    try:
        if str((process / "cwd").readlink()).removesuffix(" (deleted)") != home:
            return False
        program = (process / "exe").readlink().name
    except OSError:  # gone meanwhile, or another user's
        return False
    return program.removesuffix(" (deleted)") in programs


def _parents_in_proc() -> dict[int, int]:
    links = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  a hundred Path objects for nothing
        if not entry.isdigit():
            continue
        with suppress(OSError):
            fields = _fields(Path("/proc", entry))
            if fields[0] not in b"ZX":
                links[int(entry)] = int(fields[1])
    return links


def _parents_by_ps() -> dict[int, int]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="],  # noqa: S607  the system's own
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split() for line in listing.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
