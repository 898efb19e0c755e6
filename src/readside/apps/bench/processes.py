"""Processes of `readside run`, as a user starts them; what they say, and what they cost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from readside.adapters.embedded.spawn import Command, spawn
from readside.core.errors import UnavailableError

#: Seconds that a process may take to say what it is waited for.
_PATIENCE = 60.0
_GRACE = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """What a process has used so far; None where the system does not tell."""

    cpu_seconds: float | None
    peak_memory_mb: float | None

    def since(self, before: Cost) -> Cost:
        """What was used since then; a peak stays what it is."""
        if self.cpu_seconds is None or before.cpu_seconds is None:
            return Cost(None, self.peak_memory_mb)
        return Cost(self.cpu_seconds - before.cpu_seconds, self.peak_memory_mb)


class Started:
    """A process whose words are read as they come, with the time of each."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], words: int) -> None:
        self.name = name
        self.pid = process.pid
        self.started_at = time.perf_counter()
        self._process = process
        self._words = words
        self._rest = b""
        self._lines: list[tuple[float, str]] = []
        self._last: deque[str] = deque(maxlen=5)
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(words, self._readable)

    def _readable(self) -> None:
        now = time.perf_counter()
        text = os.read(self._words, 65536)
        if not text:
            self._close()
            self._changed.set()
            return
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            self._lines.append((now, line.decode(errors="replace")))
            self._last.append(self._lines[-1][1])
        self._changed.set()

    def check(self) -> None:
        """Make sure that it lives.

        Raises:
            UnavailableError: it has ended; with its last words.
        """
        if self._process.poll() is not None and self._words < 0:  # all its words are read
            raise UnavailableError(f"The {self.name} has ended: {' / '.join(self._last)}")

    async def until(self, words: str, patience: float = _PATIENCE) -> float:
        """Wait until it has said something, and return when that was.

        Raises:
            UnavailableError: it ended, or did not say so in time.
        """
        deadline = time.perf_counter() + patience
        while True:
            for at, line in self._lines:
                if words in line:
                    return at
            self.check()
            if time.perf_counter() > deadline:
                raise UnavailableError(
                    f"The {self.name} does not begin: {' / '.join(self._last) or 'it says nothing'}"
                )
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 0.5)
            except TimeoutError:
                continue

    async def result(self) -> str:
        """Wait until it has said that it is done, and return with what result."""
        await self.until("done ", patience=600)
        return next(line for _, line in self._lines if line.startswith("done ")).removeprefix(
            "done "
        )

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._close()

    async def stop(self) -> None:
        """End it in order, or without."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, _GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)
        self._close()

    def _close(self) -> None:
        if self._words >= 0:
            asyncio.get_running_loop().remove_reader(self._words)
            os.close(self._words)
            self._words = -1


@asynccontextmanager
async def started(name: str, directory: Path, arguments: Sequence[str]) -> AsyncIterator[Started]:
    """A Python module as a process that ends with this one, however that ends."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as log:
        command = Command([sys.executable, "-m", *arguments], directory)
        process = Started(name, await asyncio.to_thread(spawn, command, log), reading)
    try:
        yield process
        await process.stop()
    except BaseException:
        process.kill()  # whoever interrupts does not wait
        raise


def run(role: str) -> list[str]:
    """The arguments that run the app of the bench."""
    return ["readside", "run", "readside.apps.bench.subject:app", "--role", role]


def cost(pid: int, *, family: bool = False) -> Cost:
    """What a process has used, and where it is asked for, its children, also those that have ended."""
    pids = [pid, *(_children(pid) if family else [])]
    try:
        cpu = sum(_cpu(one, ended=family) for one in pids)
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return Cost(None, None)
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "")
    return Cost(cpu, round(int(peak.split()[1]) / 1024, 1) if peak else None)


def _cpu(pid: int, *, ended: bool) -> float:
    # After the name, which may hold blanks: state is the first field, utime the twelfth.
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, text[11 : 15 if ended else 13])) / _TICKS


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(word) for word in text.split()]
